#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Does the rig fail what must fail? Guests that go wrong, each in its own way.
#
#   selftest.sh BZIMAGE SRC DIR
#
# SRC is a kernel's source. Results go to stdout; DIR is for the guests' tests
# and what came of them.

set -u
cd "$(dirname "$0")/../.." || exit 1
image=$1 src=$2 dir=$3
rm -rf "$dir"
mkdir -p "$dir"

# guest_test NAME: stdin is what the test does in the guest.
guest_test() {
	{
		echo '#!/bin/sh'
		cat
	} >"$dir/$1.sh"
	chmod +x "$dir/$1.sh"
}

# boot NAME ARGUMENT...: run a guest that must not pass; its results stay.
boot() {
	_name=$1
	shift
	echo "== $_name" >&2
	if kernel/rig/boot.py --run "$dir/$_name" "$@" >&2; then
		echo "boot.py has passed $_name" >"$dir/$_name.passed"
	fi
}

# expect NAME GUEST REGEX: GUEST's results have a line like that.
expect() {
	if [ -e "$dir/$2.passed" ]; then
		echo "not ok $1: the run was not failed"
		rc=1
	elif ! grep -qE "$3" "$dir/$2/results"; then
		echo "not ok $1: no result like '$3'"
		rc=1
	else
		echo "ok $1"
	fi
}

expect_file() {
	if grep -qsxF "$3" "$dir/$2"; then
		echo "ok $1"
	else
		echo "not ok $1: no line '$3' in $dir/$2"
		rc=1
	fi
}

# Lines of kernels that were not well, and of one that was.
cat >"$dir/complaints" <<'EOT'
[   12.345678] WARNING: CPU: 1 PID: 77 at mm/rmap.c:1154 page_add_file_rmap+0x1/0x2
[   12.345678] WARNING: possible circular locking dependency detected
[   12.345678] WARNING: suspicious RCU usage
[   12.345678] BUG: unable to handle page fault for address: ffffc90000000000
[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   12.345678] BUG: Bad rss-counter state mm:00000000 type:MM_SHMEMPAGES val:1
[   12.345678] BUG: Bad page map in process minor  pte:800000010 pmd:10
[   12.345678] BUG: sleeping function called from invalid context at mm/userfaultfd.c:1
[   12.345678] BUG: soft lockup - CPU#0 stuck for 121s! [minor:77]
[   12.345678] BUG: KASAN: use-after-free in handle_userfault+0x1/0x2
[   12.345678] BUG kmalloc-64 (Not tainted): Redzone overwritten
[   12.345678] kernel BUG at mm/userfaultfd.c:77!
[   12.345678] general protection fault, probably for non-canonical address 0xdead
[   12.345678] Oops: 0002 [#1] SMP
[   12.345678] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100
[   12.345678] INFO: task minor:77 blocked for more than 120 seconds.
[   12.345678] rcu: INFO: rcu_sched self-detected stall on CPU
[   12.345678] list_add corruption. prev->next should be next, but was 0
[   12.345678] refcount_t: underflow; use-after-free.
[   12.345678] pagealloc: memory corruption
[   12.345678] get_swap_device: Bad swap file entry 3ffffffffffff
[   12.345678] swap_info_get: Unused swap offset entry 00000000
EOT
cat >"$dir/harmless" <<'EOT'
[    0.000000] Linux version 5.10.223 (rig@rig) #1 SMP 2000-01-01
[    0.123456] rcu: Hierarchical RCU implementation.
[    1.123456] 9pnet: Installing 9P2000 support
[   12.345678] traps: minor[77] general exception ip:1 sp:2 error:0
[   12.345678] minor[77]: segfault at 0 ip 1 sp 2 error 4 in minor[1+1]
[   12.345678] Memory cgroup out of memory: Killed process 77 (minor)
[   12.345678] sysrq: Resetting
EOT

# complains FILE: the lines of it that boot.py takes for complaints.
complains() {
	/usr/bin/python3 -B - "$1" <<'EOT'
import sys
sys.path.insert(0, "kernel/rig")
import boot
print("".join(line for line in open(sys.argv[1]) if boot.SPLAT.search(line)), end="")
EOT
}

# same NAME FILE FILE
same() {
	if _diff=$(diff "$2" "$3"); then
		echo "ok $1"
	else
		echo "not ok $1: $(echo "$_diff" | grep '^[<>]' | head -n 1)"
		rc=1
	fi
}

# A guest that comes to its end, but has had only the first of two tests.
ends_early() {
	mkdir -p "$dir/early"
	/usr/bin/python3 -B - "$dir/early" <<'EOT'
import sys
sys.path.insert(0, "kernel/rig")
import boot

class Guest:
    console, timed_out = "console", False
    def lines(self, deadline):
        return ["begin one", "> ok one", "end one 0", "status 0"]

report = boot.Report(sys.argv[1], "")
boot.watch(Guest(), {"one": 1, "two": 1}, report, sys.argv[1], 1)
sys.exit(0 if report.failed == 0 else 1)
EOT
}

rc=0
echo 1..19

if ends_early >/dev/null; then
	echo "not ok test_that_was_not_run: nothing failed"
	rc=1
else
	expect test_that_was_not_run early '^not ok two: it was not run'
fi

complains "$dir/complaints" >"$dir/found"
same every_complaint_is_known "$dir/complaints" "$dir/found"
complains "$dir/harmless" >"$dir/found"
same harmless_lines_are_none /dev/null "$dir/found"

guest_test good <<'EOT'
echo ok good
EOT
guest_test dies <<'EOT'
exit 3
EOT
guest_test silent <<'EOT'
echo "what it says is no result"
EOT
guest_test short <<'EOT'
echo 1..2
echo ok one
EOT
guest_test slow <<'EOT'
# timeout: 1
echo ok slow
sleep 100
EOT
guest_test failing <<'EOT'
echo "not ok failing: on purpose"
echo kept >"$RIG_KEEP/file"
exit 1
EOT
# What it leaves running, with its output open, must not hold the run up.
guest_test splat <<'EOT'
sleep 1000 &
echo "<4>WARNING: CPU: 0 PID: 1 at mm/fake.c:1 fake+0x0/0x0" >/dev/kmsg
echo ok splat
EOT
guest_test earlier <<'EOT'
echo ok earlier
echo "the log of it"
echo kept >"$RIG_KEEP/file"
EOT
guest_test panics <<'EOT'
echo c >/proc/sysrq-trigger
EOT
guest_test leaves <<'EOT'
echo ok leaves
echo b >/proc/sysrq-trigger
EOT
# The one that would end the test is stopped.
guest_test hangs <<'EOT'
# timeout: 1
echo ok hangs
kill -STOP $PPID
sleep 1000
EOT

# Most of this one's time is waiting.
boot hang --grace 45 "$image" "$dir/hangs.sh" &
hang=$!

boot several "$image" "$dir/good.sh" "$dir/dies.sh" "$dir/silent.sh" "$dir/short.sh" \
	"$dir/slow.sh" "$dir/failing.sh" "$dir/splat.sh"
expect good_test_passes several '^ok good'
expect test_that_dies several '^not ok dies: exited with status 3 '
expect test_without_a_result several '^not ok silent: printed no result'
expect too_few_results several '^not ok short: 1 results of 2'
expect test_that_takes_too_long several '^not ok slow: timed out after 1 s'
expect test_that_fails several '^not ok failing: on purpose'
expect warning_in_the_kernel_log several '^not ok splat: the kernel logged "WARNING: CPU: 0'
expect_file log_of_a_test_comes_out several/silent.log "what it says is no result"
expect_file kept_file_comes_out several/failing/file kept

boot panic "$image" "$dir/earlier.sh" "$dir/panics.sh" "$dir/good.sh"
expect guest_that_panics panic '^not ok panics: the kernel logged ".*(Kernel panic|BUG: )'
expect result_before_a_panic_counts panic '^ok earlier'
expect_file log_before_a_panic_comes_out panic/earlier.log "the log of it"
expect_file file_kept_before_a_panic_comes_out panic/earlier/file kept

boot no_status "$image" "$dir/leaves.sh"
expect guest_that_ends_without_a_status no_status '^not ok leaves: the guest ended without a status'

wait $hang
expect guest_that_hangs hang '^not ok hangs: the guest hangs'

# A machine has 64 bits or 32, not both.
printf 'CONFIG_X86_32=y\nCONFIG_NO_SUCH_OPTION=y\n' >"$dir/impossible.config"
if sh kernel/rig/build.sh -c "$src" "$dir/impossible" kernel/config/base.config \
	"$dir/impossible.config" >"$dir/impossible.out" 2>&1; then
	echo "not ok option_that_can_not_be_set: the configuration was taken"
	rc=1
elif ! grep -q "asked for 'CONFIG_X86_32=y'" "$dir/impossible.out" ||
	! grep -q "asked for 'CONFIG_NO_SUCH_OPTION=y'" "$dir/impossible.out"; then
	echo "not ok option_that_can_not_be_set: it was not named"
	rc=1
else
	echo "ok option_that_can_not_be_set"
fi
exit $rc
