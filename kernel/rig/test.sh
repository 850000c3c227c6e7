#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Boot the kernels, run the guest's tests in each, and say what came of it.
#
#   test.sh [NAME]...
#
# NAME is one of kernel/test/guest/NAME.sh, or "rig" for the tests of the rig
# itself; without a name, all. From the environment (the Makefile sets it):
#
#   KINDS     the kernels: plain, patched, or foreign-ID
#   SRC       the first kernel's source
#   FLAVOUR   base, debug
#   FULL      if it is not empty, tests that have more to them run all of it
#   ACCEL     tcg, kvm, or auto: kvm where a guest comes to its end with it
#
# A line "# kernel: plain" or "# kernel: patched" in a test says where it runs;
# with none, in both. A foreign kernel gets those for patched, and not those
# for "series", which look at its source. The last line
# is "N passed, N failed, N skipped"; logs are in build/kernel/run/KIND.

set -u
cd "$(dirname "$0")/../.." || exit 1
LC_ALL=C
export LC_ALL
: "${KINDS:?run this through make}" "${SRC:?}" "${FLAVOUR:?}"
run=build/kernel/run
results=$run/results
rm -rf "$run"
mkdir -p "$run"
: >"$results"

add() {
	echo "         $1"
	printf '%s\t%s\n' "$1" "${2:--}" >>"$results"
}

image() {
	echo "build/kernel/$FLAVOUR-$1/bzImage"
}

# A KVM that is there may still not work, or hang: it must run a guest. What
# came of it holds until the machine boots again.
accel() {
	[ "${ACCEL:-auto}" = auto ] || {
		echo "$ACCEL"
		return
	}
	_known=build/kernel/accel.$(cat /proc/sys/kernel/random/boot_id)
	if ! [ -e "$_known" ]; then
		rm -f build/kernel/accel.*
		if [ -w /dev/kvm ] && timeout -k 5 60 kernel/rig/boot.py --accel kvm --grace 20 \
			--run "$run/kvm" "$(image "${KINDS%% *}")" kernel/test/guest/sanity.sh \
			>"$run/kvm.out" 2>&1; then
			echo kvm
		else
			echo tcg
		fi >"$_known"
	fi
	cat "$_known"
}

# for_kind KIND FILE: does the test want to run on this kernel?
for_kind() {
	_only=$(sed -n 's/^# kernel: *//p' "$2" | head -n 1)
	case ${_only:-both} in
	both) return 0 ;;
	plain) [ "$1" = plain ] ;;
	patched) [ "$1" != plain ] ;;
	series) [ "$1" = patched ] ;;
	*)
		add "not ok $(basename "$2" .sh): '# kernel: $_only' is none of plain, patched, series, both"
		return 1
		;;
	esac
}

wanted=$*
# want NAME: was it asked for?
want() {
	[ -z "$wanted" ] && return 0
	for _w in $wanted; do
		[ "$_w" != "$1" ] || return 0
	done
	return 1
}

# The rig's own tests, on the host.
run_rig() {
	echo "rig:"
	out=$run/rig.out log=$run/rig.log
	: >"$out"
	kernel/rig/selftest.sh "$(image "${KINDS%% *}")" "$SRC" "$run/rig" >"$out" 2>"$log" &
	pid=$!
	tail -q -n +1 -s 0.2 -f --pid=$pid "$out" | sed -u 's/^/         /'
	wait $pid
	rc=$?
	sed -nE "s#^(ok|not ok) (.*)#\1 rig/\2	$log#p" "$out" >>"$results"
	count=$(grep -cE '^(ok|not ok) ' "$out")
	plan=$(sed -n 's/^1\.\.//p' "$out")
	if [ "$count" -ne "${plan:-0}" ]; then
		add "not ok rig: $count results of ${plan:-none}" "$log"
	elif [ $rc -ne 0 ] && ! grep -q '^not ok ' "$out"; then
		add "not ok rig: exited with status $rc and named no failed test" "$log"
	fi
}

run_kind() {
	kind=$1
	label=${kind%%-*}
	set --
	for file in kernel/test/guest/*.sh; do
		name=$(basename "$file" .sh)
		want "$name" && for_kind "$kind" "$file" && set -- "$@" "$file"
	done
	[ $# -gt 0 ] || return 0
	echo "$label ($FLAVOUR, $accel):"
	kernel/rig/boot.py --run "$run/$kind" --label "$label/" --accel "$accel" --scale "$scale" \
		--env "RIG_KERNEL=$label" --env "RIG_FLAVOUR=$FLAVOUR" --env "RIG_SCALE=$scale" \
		--env "FULL=${FULL:-}" \
		"$(image "$kind")" "$@"
	rc=$?
	cat "$run/$kind/results" >>"$results"
	if [ $rc -ne 0 ] && ! grep -q '^not ok ' "$run/$kind/results"; then
		add "not ok $label/boot: boot.py ended with status $rc"
	fi
}

# The debug flavour checks so much that all takes longer.
scale=1
[ "$FLAVOUR" = base ] || scale=4

for name in $wanted; do
	[ "$name" = rig ] || [ -e "kernel/test/guest/$name.sh" ] ||
		add "not ok $name: there is no kernel/test/guest/$name.sh"
done
accel=$(accel)
if want rig; then
	run_rig
fi
for kind in $KINDS; do
	run_kind "$kind"
done

exec test/summary.sh "$results" kernel/test/allowed-skips
