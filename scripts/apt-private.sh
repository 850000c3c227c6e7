# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# Sourced by what fetches sources from Debian: an apt with lists of its own,
# for any of Debian's releases. The system's configuration, lists and caches
# are left alone. The mirror is the one this machine already uses for Debian.
#
# The sourcing script has a die() and sets:
#   tmp       an empty directory
#   offline   what to give to do without the network, for messages
: "${tmp:?}" "${offline:?}"

# shellcheck disable=SC2016 # apt's variables, not the shell's
apt_mirror() {
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 2>/dev/null |
		sed -n 's/^Debian|Debian|//p' | sort -u | head -n 1
}

# apt_open deb|deb-src SUITE: get SUITE's index.
apt_open() {
	_uri=$(apt_mirror)
	[ -n "$_uri" ] || die "apt knows no Debian mirror on this machine;" \
		"run 'apt-get update', or give $offline"
	_key=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -e "$_key" ] || die "$_key is missing: apt-get install debian-archive-keyring"
	mkdir -p "$tmp/state/lists/partial" "$tmp/cache/archives/partial" "$tmp/dl" "$tmp/parts"
	printf '%s [signed-by=%s] %s %s main\n' "$1" "$_key" "$_uri" "$2" >"$tmp/sources.list"
	apt_get update
}

# apt_get COMMAND...: apt-get, in $tmp/dl.
apt_get() {
	(cd "$tmp/dl" && apt-get -q \
		-o Dir::Etc::SourceList="$tmp/sources.list" \
		-o Dir::Etc::SourceParts="$tmp/parts" \
		-o Dir::State="$tmp/state" -o Dir::State::Lists="$tmp/state/lists" \
		-o Dir::Cache="$tmp/cache" -o APT::Sandbox::User=root \
		"$@") >"$tmp/log" 2>&1 || {
		cat "$tmp/log" >&2
		die "apt-get $* failed; give $offline instead"
	}
}

# sha256_must_be FILE SHA256 WHAT
sha256_must_be() {
	_have=$(sha256sum "$1" | cut -d' ' -f1)
	[ "$_have" = "$2" ] || die "$1 is not $3
  expected SHA-256 $2
  found    SHA-256 $_have"
}
