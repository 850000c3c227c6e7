#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Make the kernel's source tree, with the series or without, so that what was
# built of the one before it need not be built again.
#
#   tree.sh TREE patched|plain OBJECTS...
#
# make tells by their times which files are new. In a fresh tree those have
# the times of the archive, so the files that the series changes, or that the
# one before it changed, are made new. When it is not known what objects are
# made of, they are deleted.

set -eu
tree=$1 kind=$2
shift 2
files=$tree.files
new=$files.new

{
	echo "base $BASE_SHA256"
	if [ "$kind" = patched ] && [ -s "$SERIES_DIR/series" ]; then
		sed "s|^|$SERIES_DIR/$PATCHES/|" "$SERIES_DIR/series" | xargs -d '\n' \
			sed -nE 's/^(---|\+\+\+) [ab]\///p' | sort -u
	fi
} >"$new"
if ! [ -e "$files" ] || [ "$(head -n 1 "$files")" != "base $BASE_SHA256" ]; then
	[ $# -eq 0 ] || rm -rf "$@"
fi
sh scripts/patches-tree.sh "$tree" "$kind"
touch "$files"
sed 1d "$files" "$new" | while read -r file; do
	[ ! -f "$tree/$file" ] || touch "$tree/$file"
done
mv "$new" "$files"
