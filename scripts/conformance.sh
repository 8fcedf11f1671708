#!/bin/sh
# Installs the conformance suite of the protocol, which tests the server as foreign clients speak with it, into .cache/conformance. It runs on
# the Node.js that scripts/inspector.sh installs.
set -eu
cd "$(dirname "$0")/.."
suite=0.2.0-alpha.12
dir=.cache/conformance
done=$dir/installed-$suite
scripts/inspector.sh
[ -e "$done" ] && exit 0
rm -rf "$dir"
mkdir -p "$dir"
npm install --no-audit --no-fund --omit=optional --ignore-scripts --loglevel=error --prefix "$dir" "@modelcontextprotocol/conformance@$suite" </dev/null
ln -sfn ../inspector/node "$dir/node"
touch "$done"
