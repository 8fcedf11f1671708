#!/usr/bin/env bash
# Installs what tests drive from the distribution's packages, where it is missing: Chromium for the page, tmux for the terminal.
set -euo pipefail
missing=()
for program in chromium tmux; do
	command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} = 0 ] && exit 0
[ "$(id -u)" = 0 ] || { echo "missing: ${missing[*]}; install them (apt-get install ${missing[*]}), or run this as root" >&2; exit 1; }
apt-get -q update >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
