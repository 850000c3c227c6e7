#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Write the compiler flags with which a plugin sees the same CRIU headers,
# configured alike, as the CRIU it is for.
#
#   plugin-env.sh TREE ARCH OUT
#
# TREE must have been built. OUT is a response file (gcc @OUT). CRIU's
# directories are for "quoted" includes only: some of its headers (string.h,
# sched.h, fcntl.h) are named like the C library's.

set -eu
[ $# -eq 3 ] || {
	echo "usage: plugin-env.sh TREE ARCH OUT" >&2
	exit 1
}
tree=$1 arch=$2 out=$3
mkdir -p "$(dirname "$out")"

# Only CRIU's make knows them; the plugin directory is nothing to us.
# shellcheck disable=SC2016 # make's variable
"${MAKE:-make}" -s -C "$tree" --no-print-directory \
	--eval='print-defines: ; @echo DEFINES=$(DEFINES)' print-defines >"$out.log" 2>&1 || {
	cat "$out.log" >&2
	exit 1
}
{
	sed -n 's/^DEFINES=//p' "$out.log" | tr ' ' '\n' | grep -v CR_PLUGIN_DEFAULT
	for dir in include criu/include "criu/arch/$arch/include" . images; do
		echo "-iquote $tree/$dir"
	done
	"$tree/compel/compel-host" includes
	echo "-iquote $(dirname "$out")" # what is generated of our own
} >"$out.tmp"
grep -q '^-D' "$out.tmp" || {
	echo "plugin-env: CRIU's make told no DEFINES" >&2
	exit 1
}
mv "$out.tmp" "$out"
