#!/bin/sh
# What the tests run as real peers: installed on Debian and Ubuntu as root; what is missing after that is named, and no failure.
set -eu
wanted="chromium:chromium podman:podman crun:crun bwrap:bubblewrap nft:nftables ip:iproute2 ps:procps git:git busybox:busybox-static
newuidmap:uidmap pasta:passt slirp4netns:slirp4netns runc:runc dockerd:docker.io runsvdir:runit systemctl:systemd cc:gcc cc:libc6-dev
qemu-aarch64-static:qemu-user-static docker-registry:docker-registry skopeo:skopeo buildah:buildah umoci:umoci openssl:openssl bsdtar:libarchive-tools zstd:zstd
mmdebstrap:mmdebstrap ssh-agent:openssh-client debootstrap:debootstrap"
# Playwright brings a node of its own, which needs this library.
libraries="libatomic.so.1:libatomic1"
# Files: the published schemas of the OCI runtime specification.
files="/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema:golang-github-opencontainers-specs-dev"
missing() {
    for pair in $files; do
        [ -e "${pair%%:*}" ] || echo "${pair#*:}"
    done
    for pair in $wanted; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || echo "${pair#*:}"
    done
    for pair in $libraries; do
        PATH="$PATH:/sbin" ldconfig -p 2>/dev/null | grep -q "${pair%%:*}" || echo "${pair#*:}"
    done
}
# RUNLEVEL=1: no service is started by being installed (invoke-rc.d(8)); the tests start a dockerd of their own.
install() { RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

found=$(missing)
[ -n "$found" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:" $found
    apt-get update -qq || true
    # One package that a release does not have (Ubuntu's Chromium is a snap) must not keep the others away.
    # shellcheck disable=SC2086
    install $found 2>/dev/null || for package in $found; do install "$package" || true; done
    found=$(missing)
    [ -n "$found" ] || exit 0
    echo "could not be installed:" $found
else
    echo "missing:" $found
fi
echo "tests that need them are skipped and say so"
