#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Run the tests of static/ with CRIU's own zdtm.py and --lazy-pages.
#
#   run.sh [-l | -b | -n] [-j N] [TEST...]
#
#   -l            list the tests and exit
#   -b            build what there is to build, and exit
#   -n            run what -b has built, as where a compiler would take minutes
#   -j N          run N tests at a time (1)
#   CRIU_TREE     built CRIU source tree               (build/criu)
#   PLUGIN_DIR    directory with lazy_shmem.so         (build/plugin)
#   BUILD_DIR     where everything made here goes      (build)
#   LSHM_MODE     lazy     with the plugin; what a test's .expect file says
#                          must show in the logs       (default)
#                 control  no plugin: only the contents count
#                 fallback with the plugin, on a kernel without minor faults for
#                          shmem: nothing is lazy, and each log says so once
#                 corrupt  no plugin, and some bytes of the shared memory
#                          images are flipped before the restore: a test that
#                          does not notice is not ok
#   LSHM_DISK_MBPS
#                 how fast the daemon reads the images, in each of its threads
#                 (100). With 0 as fast as it can: as a whole image may have
#                 arrived before the first access, faults are not counted.
#   LSHM_SLOW     time limits are that many times longer (1): emulated processors
#
# Prints 1..N, and "ok NAME", "not ok NAME: reason" or "skip NAME: reason" per
# test; the logs are in $BUILD_DIR/test-logs/. Exit status: 0 all ok, 1 some
# not, 2 usage.
#
# A .expect file is a shell fragment with any of
#
#   objects=N       that many objects (of 64 KiB at least) were lazy
#   min_faults=N    in each restore, all objects taken together had at least
#   min_continue=N  so many faults, pages mapped with UFFDIO_CONTINUE
#   eager=N         that many objects were filled before the task ran
#   flavor=F        flavor of zdtm.py to run in (h)
#   zdtm_opts="..." more options for zdtm.py
#   restores=N      restores that leave logs (1)

set -eu

# The system's python3 is the one that has protobuf.
PATH=/usr/bin:$PATH
export PATH

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
out=${BUILD_DIR:-$top/build}
tree=${CRIU_TREE:-$out/criu}
plugin=${PLUGIN_DIR:-$out/plugin}
mode=${LSHM_MODE:-lazy}
disk=${LSHM_DISK_MBPS:-100}
slow=${LSHM_SLOW:-1}
name_prefix=zdtm
[ "$mode" = lazy ] || name_prefix=zdtm-$mode

die() {
	echo "run.sh: $*" >&2
	exit 2
}

list_tests() {
	for c in "$here"/static/lshm_*.c; do
		t=$(basename "$c" .c)
		[ "$t" = lshm_common ] || echo "$t"
	done
}

# zdtm.py works in the directory it is called from, not in the one a symbolic
# link leads to: a tree of links with a directory static/ of our own gives it
# our tests, and leaves CRIU's tree as it is.
lay_out() {
	rm -rf "$root"
	mkdir -p "$root/test/zdtm/static" "$logs"
	for f in zdtm.py zdtm.desc zdtm_ct umount2 zdtm_mount_cgroups zdtm_umount_cgroups plugins pycriu; do
		ln -s "$tree/test/$f" "$root/test/"
	done
	for f in "$tree"/test/zdtm/*; do
		case ${f##*/} in
		static | transition) ;;
		*) ln -s "$f" "$root/test/zdtm/" ;;
		esac
	done
	for f in "$here"/static/*; do
		case $f in
		*.c | *.h | *.desc | *.hook | *.checkskip | */Makefile) ln -s "$f" "$root/test/zdtm/static/" ;;
		esac
	done
	ln -s "$here/images.py" "$root/test/images.py"
}

# zdtm.py overrides CRIU_LIBS_DIR, so the binary it is given sets it again.
write_wrapper() {
	case $mode in
	lazy | fallback) libs=$plugin ;;
	*)
		libs=$root/no-plugins
		mkdir -p "$libs"
		;;
	esac
	preload=
	if [ "$mode" = lazy ] && [ "$disk" -ne 0 ]; then
		preload=$root/slow_disk.so
	fi
	cat >"$root/criu" <<-END
		#!/bin/sh
		[ "\$1" != lazy-pages ] || export LD_PRELOAD='$preload' LSHM_DISK_MBPS=$disk
		CRIU_LIBS_DIR='$libs' exec '$tree/criu/criu' "\$@"
	END
	chmod +x "$root/criu"
}

build_all() {
	[ -x "$tree/criu/criu" ] || die "$tree/criu/criu: not built"
	[ "$mode" = control ] || [ "$mode" = corrupt ] || [ -e "$plugin/lazy_shmem.so" ] || die "$plugin/lazy_shmem.so: not built"
	{
		{ [ -e "$tree/lib/pycriu/rpc_pb2.py" ] || make -C "$tree" lib; } &&
			make -C "$tree/test" umount2 zdtm_ct &&
			make -C "$tree/test/zdtm/lib"
	} >"$logs/build.log" 2>&1 || die "cannot build the test library, see $logs/build.log"
	lay_out
	{
		make -C "$root/test/zdtm/static" all &&
			cc -D_GNU_SOURCE -O2 -Wall -Werror -shared -fPIC -o "$root/slow_disk.so" "$here/../lib/slow_disk.c"
	} >>"$logs/build.log" 2>&1 || die "cannot build the tests, see $logs/build.log"
}

load_expect() {
	objects='' min_faults='' min_continue='' eager='' flavor=h zdtm_opts='' restores=1
	# shellcheck source=/dev/null
	. "$here/static/$1.expect"
	[ "$disk" -ne 0 ] || min_faults=0 min_continue=0
}

# Directories of one run, one for each dump that was made
image_dirs() {
	ls -d "$root/test/dump/zdtm/static/$1"/*/[0-9] 2>/dev/null
}

# Sums of the plugin's per-object summary lines: objects faults continue
sum_counters() {
	awk '
	/lazy-shmem: object [^ ]* done: / {
		split("", v)
		for (i = 1; i <= NF; i++)
			if (split($i, kv, "=") == 2)
				v[kv[1]] = kv[2]
		if (v["size"] < 65536)
			next
		objects++
		faults += v["faults"]
		cont += v["pages_continue"]
	}
	END { print objects + 0, faults + 0, cont + 0 }' "$1"
}

count_eager() {
	sed -n 's/.*lazy-shmem: object \([^ ]*\) not lazy: .*/\1/p' "$1" | sort -u | wc -l
}

# Prints what one restore lacks, or nothing
check_lazy() {
	# shellcheck disable=SC2046
	set -- $(sum_counters "$1/lazy-pages.log") "$(count_eager "$1/restore.log")"
	[ "$1" -eq "${objects:-$1}" ] || echo "$1 lazy objects instead of $objects"
	[ "$2" -ge "${min_faults:-0}" ] || echo "$2 faults, at least $min_faults expected"
	[ "$3" -ge "${min_continue:-0}" ] || echo "$3 pages continued, at least $min_continue expected"
	[ "$4" -eq "${eager:-0}" ] || echo "$4 objects not lazy instead of ${eager:-0}"
}

check_fallback() {
	for log in restore.log lazy-pages.log; do
		said=$(grep -c 'lazy-shmem: .*: this kernel has no minor faults for shmem' "$1/$log") || :
		all=$(grep -c 'lazy-shmem: ' "$1/$log") || :
		[ "$said $all" = "1 1" ] || echo "$said of $all lines in $log say why nothing is lazy, not the only one"
	done
}

check_expect() {
	n=0
	for d in $(image_dirs "$1"); do
		[ -e "$d/lazy-pages.log" ] || continue
		n=$((n + 1))
		"check_$mode" "$d"
	done
	[ $n -eq "$restores" ] || echo "$n restores instead of $restores"
}

run_zdtm() {
	rm -rf "$root/test/dump/zdtm/static/$1"
	[ "$mode" != corrupt ] || ln -sf "$here/corrupt.hook" "$root/test/zdtm/static/$1.hook"
	# shellcheck disable=SC2086
	(cd "$root/test" && timeout -s KILL $((120 * slow)) ./zdtm.py run -t "zdtm/static/$1" -f "$flavor" \
		--lazy-pages -k always --criu-bin "$root/criu" $zdtm_opts)
}

first_failure() {
	sed -n 's/.*\(FAIL: .*\)/\1/p; s/.*\(ERR: .*\)/\1/p' "$root/test/zdtm/static/$1".out* 2>/dev/null | head -n 1
}

failed_step() {
	sed -n 's/.* FAIL at \(.*[^ #]\) *#*$/\1/p' "$logs/$1.log" | head -n 1
}

skip_reason() {
	sed -n "s/^Skipping zdtm\/static\/$1 (\(.*\))$/\1/p" "$logs/$1.log"
	sed -n 's/.*SKIP: [^:]*:[0-9]*: //p' "$root/test/zdtm/static/$1.out" 2>/dev/null
}

append_logs() {
	for d in $(image_dirs "$1"); do
		for l in dump restore lazy-pages; do
			[ -e "$d/$l.log" ] || continue
			echo "===== ${d##*/}/$l.log ====="
			cat "$d/$l.log"
		done
	done >>"$logs/$1.log"
}

# Prints "ok", "not ok: reason" or "skip: reason"
verdict() {
	reason=$(skip_reason "$1" | head -n 1)
	if [ -n "$reason" ]; then
		echo "skip: $reason"
	elif [ "$mode" = corrupt ]; then
		if [ "$(failed_step "$1")" = "result check" ]; then
			echo ok
		else
			echo "not ok: a flipped byte went unnoticed"
		fi
	elif [ "$2" -eq 137 ]; then
		echo "not ok: timed out"
	elif [ "$2" -ne 0 ]; then
		echo "not ok: $(failed_step "$1"): $(first_failure "$1")"
	else
		[ "$mode" = control ] || reason=$(check_expect "$1" | paste -s -d ';')
		echo "${reason:+not }ok${reason:+: $reason}"
	fi
}

run_one() {
	rc=0
	load_expect "$1"
	run_zdtm "$1" >"$logs/$1.log" 2>&1 || rc=$?
	v=$(verdict "$1" $rc)
	append_logs "$1"
	echo "${v%%:*} $name_prefix/$1${v#"${v%%:*}"}"
	case $v in
	not*) failed=1 ;;
	*) rm -rf "$root/test/dump/zdtm/static/$1" ;;
	esac
}

# run_lane LANE TEST...: each N-th of the tests
run_lane() {
	lane=$1 nr=0 failed=0
	shift
	for t; do
		[ $((nr % jobs)) -ne "$lane" ] || run_one "$t"
		nr=$((nr + 1))
	done
	return $failed
}

run_lanes() {
	lanes='' lane=0 failed=0
	while [ $lane -lt "$jobs" ]; do
		run_lane $lane "$@" &
		lanes="$lanes $!"
		lane=$((lane + 1))
	done
	for lane in $lanes; do
		wait "$lane" || failed=1
	done
	return $failed
}

case $mode in
lazy | control | fallback | corrupt) ;;
*) die "LSHM_MODE=$mode?" ;;
esac
build=1 run=1 jobs=1
while getopts lbnj: opt; do
	case $opt in
	l)
		list_tests
		exit 0
		;;
	b) run= ;;
	n) build= ;;
	j) jobs=$OPTARG ;;
	*) die "usage: run.sh [-l | -b | -n] [-j N] [TEST...]" ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || eval "set -- $(list_tests | paste -s -d ' ')"
for t; do
	[ -e "$here/static/$t.c" ] || die "$t: no such test"
	[ -e "$here/static/$t.expect" ] || die "$t: no .expect file"
done

root=$out/zdtm/$mode
logs=$out/test-logs/$name_prefix
mkdir -p "$logs"
[ -z "$build" ] || build_all
[ -n "$run" ] || exit 0
[ -x "$root/test/zdtm/static/lshm_seq" ] || die "$root: nothing was built"
write_wrapper

# zdtm.py does not give back its huge pages when a test fails.
huge=/proc/sys/vm/nr_hugepages
nr_huge=$(cat $huge)
trap 'echo "$nr_huge" >$huge' EXIT
trap 'exit 143' INT TERM

echo "1..$#"
run_lanes "$@"
