#!/bin/sh
# What the tests run as real peers: installed on Debian and Ubuntu as root, else what is missing is named.
set -eu
missing=""
want() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
want chromium chromium
want podman podman
want crun crun
want bwrap bubblewrap
want nft nftables
want ip iproute2
want ps procps
want git git
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "missing:$missing (tests that need them are skipped and say so; as root on Debian or Ubuntu they are installed)"
fi
