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

# The mirror is the one this machine already uses for Debian itself.
# shellcheck disable=SC2016 # apt's variables, not the shell's
mirror() {
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 2>/dev/null |
		sed -n 's/^Debian|Debian|//p' | sort -u | head -n 1
}

fetch() {
	uri=$(mirror)
	[ -n "$uri" ] || die "apt knows no Debian mirror on this machine;" \
		"run 'apt-get update', or give CRIU_TARBALL=criu_$version.orig.tar.gz"
	key=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -e "$key" ] || die "$key is missing: apt-get install debian-archive-keyring"

	mkdir -p "$tmp/state/lists/partial" "$tmp/cache/archives/partial" "$tmp/dl" "$tmp/parts"
	printf 'deb-src [signed-by=%s] %s %s main\n' "$key" "$uri" "$suite" >"$tmp/sources.list"
	set -- -q \
		-o Dir::Etc::SourceList="$tmp/sources.list" \
		-o Dir::Etc::SourceParts="$tmp/parts" \
		-o Dir::State="$tmp/state" -o Dir::State::Lists="$tmp/state/lists" \
		-o Dir::Cache="$tmp/cache" -o APT::Sandbox::User=root
	apt-get "$@" update >"$tmp/log" 2>&1 || {
		cat "$tmp/log" >&2
		die "apt-get update of the private lists failed"
	}
	(cd "$tmp/dl" && apt-get "$@" source --tar-only criu >>"$tmp/log" 2>&1) || {
		cat "$tmp/log" >&2
		die "apt-get source --tar-only criu failed; give CRIU_TARBALL=FILE instead"
	}
	set -- "$tmp"/dl/criu_*.orig.tar.*
	[ -e "$1" ] || die "apt-get left no criu_*.orig.tar.*"
	tarball=$1
}

if [ -n "${CRIU_TARBALL:-}" ]; then
	[ -e "$CRIU_TARBALL" ] || die "CRIU_TARBALL=$CRIU_TARBALL: no such file"
	tarball=$CRIU_TARBALL
else
	fetch
fi

have=$(sha256sum "$tarball" | cut -d' ' -f1)
if [ "$have" != "$want" ]; then
	echo "fetch-criu: $tarball is not the CRIU $version this tree is built on" >&2
	echo "  expected SHA-256 $want" >&2
	echo "  found    SHA-256 $have" >&2
	exit 1
fi
mkdir -p "$(dirname "$out")"
cp "$tarball" "$out.tmp"
mv "$out.tmp" "$out"
