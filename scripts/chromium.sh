#!/usr/bin/env bash
# Installs Chromium, in which tests drive the page, from the distribution's packages where there is none.
set -euo pipefail
command -v chromium >/dev/null && exit 0
[ "$(id -u)" = 0 ] || { echo "chromium is missing: install it (apt-get install chromium), or run this as root" >&2; exit 1; }
apt-get -q update >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends chromium </dev/null >/dev/null
