#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Fetch CRIU's pristine source tarball from the Debian release that ships
# it, without touching the system's apt configuration, lists or caches.
#
#   fetch-criu.sh OUT SHA256 VERSION SUITE
#
# CRIU_TARBALL=FILE uses FILE instead of the network. Whatever the source,
# OUT only comes into being once its SHA-256 is the pinned one.

set -eu

die() {
	echo "fetch-criu: $*" >&2
	exit 1
}

[ $# -eq 4 ] || die "usage: fetch-criu.sh OUT SHA256 VERSION SUITE"
out=$1 want=$2 version=$3 suite=$4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# shellcheck disable=SC2034 # for apt-private.sh
offline="CRIU_TARBALL=criu_$version.orig.tar.gz"
. "$(dirname "$0")/apt-private.sh"

if [ -n "${CRIU_TARBALL:-}" ]; then
	[ -e "$CRIU_TARBALL" ] || die "CRIU_TARBALL=$CRIU_TARBALL: no such file"
	tarball=$CRIU_TARBALL
else
	apt_open deb-src "$suite"
	apt_get source --tar-only criu
	set -- "$tmp"/dl/criu_*.orig.tar.*
	[ -e "$1" ] || die "apt-get left no criu_*.orig.tar.*"
	tarball=$1
fi

sha256_must_be "$tarball" "$want" "the CRIU $version this tree is built on"
mkdir -p "$(dirname "$out")"
cp "$tarball" "$out.tmp"
mv "$out.tmp" "$out"
