#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Make a source tree, with the series or without.
#
#   patches-tree.sh TREE patched|plain

set -eu
. "$(dirname "$0")/series.sh"
[ $# -eq 2 ] || die "usage: patches-tree.sh TREE patched|plain"
tree=$1 kind=$2

rm -rf "$tree.new"
unpack "$tree.new"
if [ "$kind" = patched ]; then
	series_check
	for name in $(series "$SERIES_DIR"); do
		apply_patch "$tree.new" "$name"
	done
	echo "$self: $BASE_NAME $BASE_VERSION with $(series "$SERIES_DIR" | wc -l) patches in $tree"
else
	echo "$self: $BASE_NAME $BASE_VERSION, unpatched, in $tree"
fi
rm -rf "$tree"
mv "$tree.new" "$tree"
