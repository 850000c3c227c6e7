#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Import the series and export it again: not a byte may differ.
#
#   patches-roundtrip.sh SCRATCH

set -eu
. "$(dirname "$0")/series.sh"
[ $# -eq 1 ] || die "usage: patches-roundtrip.sh SCRATCH"
scratch=$1
here=$(dirname "$0")

rm -rf "$scratch"
mkdir -p "$scratch/want$patches"
sh "$here/patches-import.sh" "$scratch/git" >/dev/null
sh "$here/patches-export.sh" "$scratch/git" "$scratch/out" >/dev/null
[ ! -e "$SERIES_DIR/series" ] || cp "$SERIES_DIR/series" "$scratch/want/"
[ -e "$scratch/want/series" ] || : >"$scratch/want/series"
for name in $(series "$SERIES_DIR"); do
	cp "$SERIES_DIR$patches/$name" "$scratch/want$patches/"
done
diff -ru "$scratch/want" "$scratch/out" ||
	die "the series is not what export writes; 'make $SERIES_TARGETS-import $SERIES_TARGETS-export' to refresh it"
rm -rf "$scratch"
echo "$self: $(series "$SERIES_DIR" | wc -l) patches are the same after import and export"
