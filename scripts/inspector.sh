#!/bin/sh
# Installs the MCP Inspector, by which a test drives the server as a foreign client does, into .cache/inspector, with a
# Node.js of its own: the Inspector wants version 22, which distributions may not have.
set -eu
cd "$(dirname "$0")/.."
inspector=2.12.0
node=22.23.3
dir=.cache/inspector
done=$dir/installed-$inspector-$node
[ -e "$done" ] && exit 0
if ! command -v npm >/dev/null; then
	[ "$(id -u)" = 0 ] || { echo "npm is missing: install it (apt-get install npm), or run this as root" >&2; exit 1; }
	apt-get -q update >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends npm </dev/null >/dev/null
fi
case $(uname -m) in
x86_64) arch=x64 ;;
aarch64) arch=arm64 ;;
*) echo "there is no Node.js $node for $(uname -m)" >&2; exit 1 ;;
esac
rm -rf "$dir"
mkdir -p "$dir"
# The package node only picks one of these by a script, which newer versions of npm don't run.
npm install --no-audit --no-fund --omit=optional --ignore-scripts --loglevel=error --prefix "$dir" \
	"node-linux-$arch@$node" "@modelcontextprotocol/inspector@$inspector" </dev/null
ln -sfn "node_modules/node-linux-$arch/bin/node" "$dir/node"
touch "$done"
