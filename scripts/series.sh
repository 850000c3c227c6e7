# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# Sourced by the patch scripts: the series, the base, and a git that does
# the same thing on every machine.
#
# From the environment (the Makefile sets it):
#   BASE_NAME                   what is patched: CRIU, Linux
#   BASE_VERSION, BASE_SHA256   the release the series is made for
#   BASE_TARBALL                its source
#   SERIES_DIR                  the file "series", and the patches
#   PATCHES                     ... or the patches' directory below that
#   SERIES_TARGETS              what the make targets' names begin with

: "${BASE_VERSION:?run this through make}" "${BASE_SHA256:?}" "${BASE_TARBALL:?}"
: "${BASE_NAME:?}" "${SERIES_DIR:?}" "${SERIES_TARGETS:?}"
patches=${PATCHES:+/$PATCHES}
self=$(basename "$0" .sh)

die() {
	echo "$self: $*" >&2
	exit 1
}

# series DIR: the names of DIR's patches, in order.
series() {
	[ ! -e "$1/series" ] || grep -v '^$' "$1/series" || :
}

# header FILE: all that comes before the first diff, less the blank line
# that ends it.
header() {
	sed '/^diff --git /,$d' "$1" | sed '${/^$/d;}'
}

# header_check NAME: stdin is NAME's header; say what is wrong with it.
header_check() {
	_hdr=$(cat)
	_bad=
	for _f in Description Origin Forwarded Last-Update; do
		printf '%s\n' "$_hdr" | grep -q "^$_f: *[^ ]" || _bad="$_bad $_f"
	done
	[ -z "$_bad" ] || {
		echo "$self: $1: the DEP-3 header has no$_bad" >&2
		return 1
	}
	printf '%s\n' "$_hdr" | grep -Eq '^Last-Update: [0-9]{4}-[0-9]{2}-[0-9]{2}$' || {
		echo "$self: $1: Last-Update is not a YYYY-MM-DD date" >&2
		return 1
	}
	# patch(1) would take these for the start of a diff.
	if printf '%s\n' "$_hdr" | grep -Eq '^(diff |--- .|\*\*\* |Index:)'; then
		echo "$self: $1: a line of the header reads like a diff" >&2
		return 1
	fi
}

# series_check: every name is good, every patch is there, none is left over.
series_check() {
	_rc=0
	_names=$(series "$SERIES_DIR")
	for _n in $_names; do
		if ! [ -f "$SERIES_DIR$patches/$_n" ]; then
			echo "$self: $SERIES_DIR$patches/$_n is in the series but does not exist" >&2
			_rc=1
		else
			header "$SERIES_DIR$patches/$_n" | header_check "$_n" || _rc=1
		fi
	done
	for _p in "$SERIES_DIR$patches"/*.patch; do
		[ -e "$_p" ] || continue
		printf '%s\n' "$_names" | grep -qxF "$(basename "$_p")" || {
			echo "$self: $_p is not in the series" >&2
			_rc=1
		}
	done
	return $_rc
}

# unpack DIR: the pristine source as DIR, which must not exist.
unpack() {
	_have=$(sha256sum <"$BASE_TARBALL" | cut -d' ' -f1)
	[ "$_have" = "$BASE_SHA256" ] || die "$BASE_TARBALL is not $BASE_NAME $BASE_VERSION
  expected SHA-256 $BASE_SHA256
  found    SHA-256 $_have
The series applies to nothing else; 'rm $BASE_TARBALL' to fetch it again."
	mkdir -p "$(dirname "$1")"
	mkdir "$1"
	tar -xf "$BASE_TARBALL" -C "$1" --strip-components=1 --no-same-owner
}

# apply_patch DIR NAME: offsets are tolerated, fuzz is not.
apply_patch() {
	_out=$(patch -d "$1" -p1 --fuzz=0 --batch --forward --no-backup-if-mismatch \
		<"$SERIES_DIR$patches/$2" 2>&1) || {
		printf '%s\n' "$_out" >&2
		die "$2 does not apply to $BASE_NAME $BASE_VERSION with the patches before it"
	}
}

# pristine: the subject of the commit that has no patch yet.
pristine() {
	echo "$(echo "$BASE_NAME" | tr '[:upper:]' '[:lower:]') $BASE_VERSION pristine"
}

# git, with no say for the user's or the machine's configuration.
pgit() {
	(
		# shellcheck disable=SC2046 # a list of variable names
		unset $(env | sed -n 's/^\(GIT_[A-Z0-9_]*\)=.*/\1/p') XDG_CONFIG_HOME
		export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1 \
			GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
			GIT_AUTHOR_NAME=criu-patches GIT_AUTHOR_EMAIL=criu-patches@localhost \
			GIT_COMMITTER_NAME=criu-patches GIT_COMMITTER_EMAIL=criu-patches@localhost \
			GIT_AUTHOR_DATE='2000-01-01T00:00:00Z' GIT_COMMITTER_DATE='2000-01-01T00:00:00Z'
		exec git -c core.autocrlf=false -c core.attributesFile=/dev/null \
			-c core.excludesFile=/dev/null -c commit.gpgSign=false "$@"
	)
}

# unexported DIR: list what DIR holds that no import or export has seen;
# true if there is anything, or no telling.
unexported() {
	pgit -C "$1" rev-parse -q --verify exported >/dev/null || return 0
	_work=$(pgit -C "$1" status --porcelain &&
		pgit -C "$1" log --format='commit %h %s' HEAD --branches \
			--glob=refs/stash --not exported) || return 0
	[ -n "$_work" ] || return 1
	printf '%s\n' "$_work"
}
