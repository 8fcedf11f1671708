#!/bin/sh
# Installs two coding agents into .cache/agents, which are to connect to the server without an account. They take 500 MB, and run on the
# Node.js that scripts/inspector.sh installs.
set -eu
cd "$(dirname "$0")/.."
claude=2.1.197
opencode=1.18.33
dir=.cache/agents
done=$dir/installed-$claude-$opencode
scripts/inspector.sh
[ -e "$done" ] && exit 0
rm -rf "$dir"
mkdir -p "$dir"
# Their own installation scripts choose the program for this machine.
npm install --no-audit --no-fund --loglevel=error --prefix "$dir" "@anthropic-ai/claude-code@$claude" "opencode-ai@$opencode" </dev/null
touch "$done"
