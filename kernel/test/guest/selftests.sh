#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What the series brings along for the kernel's own tree: is all of the
# interface documented, and do the kernel's selftests of userfaultfd pass?
# kernel: series
# timeout: 240

set -u
src=build/kernel/src-patched
plain=build/kernel/src-plain
header=include/uapi/linux/userfaultfd.h
tests=tools/testing/selftests/vm
rc=0

result() {
	if [ "$1" -eq 0 ]; then
		echo "ok $2"
	else
		echo "not ok $2: $3"
		rc=1
	fi
}

names() {
	grep -oE '\b_?UFFD[A-Z]*_[A-Z_]+\b|\bUFFDIO_[A-Z_]+\b|\bstruct uffd[a-z_]+\b' "$1/$header" |
		grep -v '^_' | sort -u
}

# What the header has that it had not.
documented() {
	names "$plain" >/tmp/before
	names "$src" | comm -13 /tmp/before - >/tmp/added
	cat /tmp/added
	[ -s /tmp/added ] || return 1
	while read -r name; do
		grep -qw "$name" "$src/Documentation/admin-guide/mm/userfaultfd.rst" || {
			echo "no word about $name"
			return 1
		}
	done </tmp/added
}

build() {
	mkdir -p /tmp/uapi/linux && cp "$src/$header" /tmp/uapi/linux/ &&
		gcc -Wall -I /tmp/uapi -o "/tmp/$1" "$src/$tests/$1.c" -lpthread -lrt
}

# minor TYPE: a line of ours for each of its own, of which there are four.
minor() {
	/tmp/uffd-minor "$1" >/tmp/out
	_rc=$?
	sed 's/^/| /' /tmp/out
	[ $_rc -eq 0 ] && [ "$(grep -c '^ok [1-4] ' /tmp/out)" -eq 4 ]
}

[ -d "$plain" ] || plain=/nonexistent
echo 1..6
documented
result $? documented "see the log"
build uffd-minor && minor shmem
result $? minor_shmem "see the log"
minor hugetlb
result $? minor_hugetlb "see the log"
build userfaultfd && /tmp/userfaultfd anon 16 2
result $? userfaultfd_anon "see the log"
/tmp/userfaultfd shmem 16 2
result $? userfaultfd_shmem "see the log"
mkdir /tmp/huge && mount -t hugetlbfs none /tmp/huge && /tmp/userfaultfd hugetlb_shared 32 2 /tmp/huge/test
result $? userfaultfd_hugetlb "see the log"
exit $rc
