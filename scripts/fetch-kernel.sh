#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Fetch the kernel's source, as Debian ships it in linux-source-VERSION,
# without touching the system's apt configuration, lists or caches.
#
#   fetch-kernel.sh OUT SHA256 VERSION SUITE
#
# VERSION is the package's, such as 5.10.223-1. KERNEL_TARBALL=FILE uses FILE,
# the archive that is in the package, instead of the network. Whatever the
# source, OUT only comes into being once its SHA-256 is the pinned one.

set -eu

die() {
	echo "fetch-kernel: $*" >&2
	exit 1
}

[ $# -eq 4 ] || die "usage: fetch-kernel.sh OUT SHA256 VERSION SUITE"
out=$1 want=$2 version=$3 suite=$4
package=linux-source-$(echo "$version" | cut -d. -f1-2)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# shellcheck disable=SC2034 # for apt-private.sh
offline="KERNEL_TARBALL=$package.tar.xz"
. "$(dirname "$0")/apt-private.sh"

mkdir -p "$(dirname "$out")"
if [ -n "${KERNEL_TARBALL:-}" ]; then
	[ -e "$KERNEL_TARBALL" ] || die "KERNEL_TARBALL=$KERNEL_TARBALL: no such file"
	cp "$KERNEL_TARBALL" "$out.tmp"
else
	apt_open deb "$suite"
	apt_get download "$package=$version"
	dpkg-deb --fsys-tarfile "$tmp/dl/$package"_*.deb |
		tar -xO "./usr/src/$package.tar.xz" >"$out.tmp"
fi
sha256_must_be "$out.tmp" "$want" "the source of Linux $version"
mv "$out.tmp" "$out"
