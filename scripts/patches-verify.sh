#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Does each step of the series apply without fuzz, and build?
#
#   patches-verify.sh TREE [MAKE-ARGUMENT...]

set -eu
. "$(dirname "$0")/series.sh"
[ $# -ge 1 ] || die "usage: patches-verify.sh TREE [MAKE-ARGUMENT...]"
tree=$1
shift

build() {
	_start=$(date +%s)
	"${MAKE:-make}" -C "$tree" "$@" criu </dev/null >"$tree.log" 2>&1 || {
		tail -n 40 "$tree.log" >&2
		die "CRIU does not build with $step (whole log: $tree.log)"
	}
	echo "$self: $step builds ($(($(date +%s) - _start)) s)"
}

series_check
rm -rf "$tree"
unpack "$tree"
step="no patch"
build "$@"
for step in $(series "$SERIES_DIR"); do
	apply_patch "$tree" "$step"
	build "$@"
done
echo "$self: $(series "$SERIES_DIR" | wc -l) patches apply and build, each in turn"
