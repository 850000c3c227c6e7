#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Run CRIU's own tests, in zdtm.py's uns flavour with --lazy-pages, against
# the patched tree and the plugin.
# timeout: 3000
#
#   upstream.sh [-s] [-j N] [TEST...]
#
#   -s            only the tests of shared memory, memfds and mappings; and
#                 then once more as a control, with CRIU_PLAIN and no plugin
#   -j N          run N tests at a time                (2)
#   TEST          a test as zdtm.py calls it; without any, the tests listed in
#                 upstream-baseline.txt: those which unpatched CRIU passes
#   CRIU_TREE     the patched tree, built              (build/criu)
#   CRIU_PLAIN    the unpatched tree, built            (build/criu-plain)
#   PLUGIN_DIR    directory with lazy_shmem.so; if it is set and empty, there
#                 is no plugin                         (build/plugin)
#   BUILD_DIR     where the logs go                    (build)
#
# Prints "ok NAME", "not ok NAME: reason" or "skip NAME: reason" per test and,
# at the end, "N passed, N failed". Exit status: 0 all ok, 1 some not, 2 usage.

set -eu

# The system's python3 is the one that has protobuf.
PATH=/usr/bin:$PATH
export PATH

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/.." && pwd)
build=${BUILD_DIR:-$top/build}
tree=${CRIU_TREE:-$build/criu}
plain=${CRIU_PLAIN:-$build/criu-plain}
plugin=${PLUGIN_DIR-$build/plugin}
logs=$build/test-logs/upstream
jobs=2
short=

die() {
	echo "upstream.sh: $*" >&2
	exit 2
}

usage() {
	die "usage: upstream.sh [-s] [-j N] [TEST...]"
}

short_list() {
	grep -E '/(maps|memfd|shm)' "$here/upstream-baseline.txt"
}

# build_dir TREE DIR TEST...: those of the tests that are in DIR
build_dir() {
	_tree=$1 _dir=$2
	shift 2
	# shellcheck disable=SC2046
	make -j"$jobs" -C "$_tree/test/zdtm/$_dir" $(printf '%s\n' "$@" | sed -n "s|^zdtm/$_dir/||p")
}

# zdtm.py runs in the tree, of which it makes the root directory of the tests.
# It builds a test when it needs it, but not two of them at the same time.
build_tests() {
	t=$1
	shift
	[ -x "$t/criu/criu" ] || die "$t/criu/criu: not built"
	{
		{ [ -e "$t/lib/pycriu/rpc_pb2.py" ] || make -C "$t" lib; } &&
			make -C "$t/test/zdtm/lib" &&
			build_dir "$t" static "$@" &&
			build_dir "$t" transition "$@"
	} >"$logs/build.log" 2>&1 || die "cannot build the tests, see $logs/build.log"
}

# zdtm.py overrides CRIU_LIBS_DIR, so the binary it is given sets it again.
# write_wrapper NAME TREE LIBS
write_wrapper() {
	mkdir -p "$build/zdtm/no-plugins"
	cat >"$build/zdtm/$1" <<-END
		#!/bin/sh
		CRIU_LIBS_DIR='${3:-$build/zdtm/no-plugins}' exec '$2/criu/criu' "\$@"
	END
	chmod +x "$build/zdtm/$1"
}

# What zdtm.py says about each test, as lines of ours with prefix $1
results() {
	sed -n \
		-e "s|^=* Test zdtm/\([^ ]*\) PASS =*\$|ok $1/\1|p" \
		-e "s|^#* Test zdtm/\([^ ]*\) FAIL at Deps check \(.*\) failed #*\$|skip $1/\1: there is no \2|p;t" \
		-e "s|^#* Test zdtm/\([^ ]*\) FAIL at \(.*[^ #]\) *#*\$|not ok $1/\1: \2|p" \
		-e "s|^Skipping zdtm/\([^ ]*\) (\(.*\))\$|skip $1/\1: \2|p" "$2" |
		sed 's|^\([^:]*\)/static/|\1/|; s|^\([^:]*\)/transition/|\1/transition-|'
}

# run_suite NAME TREE LIBS TEST...
run_suite() {
	name=$1 t=$2 libs=$3
	shift 3
	log=$logs/$name.log
	build_tests "$t" "$@"
	write_wrapper "$name" "$t" "$libs"
	nr=$#
	for test; do
		set -- "$@" -t "$test"
		shift
	done
	(cd "$t/test" && timeout -s KILL 2400 ./zdtm.py run "$@" -f uns --lazy-pages --keep-going \
		-p "$jobs" --criu-bin "$build/zdtm/$name") >"$log" 2>&1 || :
	results "$name" "$log" | tee "$log.results" | sed 's/ *$//'
	[ "$(wc -l <"$log.results")" -eq "$nr" ] ||
		echo "not ok $name: $(wc -l <"$log.results") results of $nr, see $log" | tee -a "$log.results"
}

# All of it would pass as well if the plugin were not there.
check_plugin() {
	dump=$tree/test/dump/zdtm/transition/shmem
	rm -rf "$dump"
	(cd "$tree/test" && timeout -s KILL 120 ./zdtm.py run -t zdtm/transition/shmem -f uns --lazy-pages \
		-k always --criu-bin "$build/zdtm/upstream") >"$logs/plugin.log" 2>&1 || :
	if grep -qs 'lazy-shmem: object .* done: ' "$dump"/*/*/lazy-pages.log; then
		echo "ok upstream/plugin-in-use"
	else
		echo "not ok upstream/plugin-in-use: no object was lazy, see $logs/plugin.log"
	fi | tee "$logs/plugin.results"
	rm -rf "$dump"
}

while getopts sj: opt; do
	case $opt in
	s) short=1 ;;
	j) jobs=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ -z "$short" ] || [ $# -eq 0 ] || usage
[ -z "$plugin" ] || [ -e "$plugin/lazy_shmem.so" ] || die "$plugin/lazy_shmem.so: not built"
if [ -n "$short" ]; then
	eval "set -- $(short_list | paste -s -d ' ')"
elif [ $# -eq 0 ]; then
	eval "set -- $(paste -s -d ' ' "$here/upstream-baseline.txt")"
fi

mkdir -p "$logs" "$build/zdtm"
rm -f "$logs"/*.results

# Root in a user namespace may open a userfaultfd only with this. And zdtm.py
# does not give back its huge pages when a test fails.
uffd=/proc/sys/vm/unprivileged_userfaultfd
huge=/proc/sys/vm/nr_hugepages
old_uffd=$(cat $uffd)
old_huge=$(cat $huge)
trap 'echo "$old_uffd" >$uffd; echo "$old_huge" >$huge' EXIT
trap 'exit 143' INT TERM
echo 1 >$uffd

run_suite upstream "$tree" "$plugin" "$@"
[ -z "$plugin" ] || check_plugin
[ -z "$short" ] || run_suite upstream-control "$plain" "" "$@"

passed=$(cat "$logs"/*.results | grep -c '^ok ') || :
failed=$(cat "$logs"/*.results | grep -c '^not ok ') || :
skipped=$(cat "$logs"/*.results | grep -c '^skip ') || :
[ "$skipped" -eq 0 ] && skipped='' || skipped=", $skipped skipped"
echo "$passed passed, $failed failed$skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
