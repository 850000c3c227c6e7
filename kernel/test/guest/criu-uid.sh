#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Tasks of an ordinary user, and of root in a user namespace. Where root lacks
# CAP_SYS_RESOURCE, CRIU can not dump the first.
#
# kernel: patched
# timeout: 240

. kernel/test/guest/parts.inc

# One of CRIU's own, which runs as user 18943; ours have to be root to see that they
# have been restored.
tests="transition/shmem"
flavours="h uns"
tree=$PWD/build/criu
log=$RIG_KEEP/zdtm.log

export LSHM_SLOW=5

# One run of zdtm.py for all, which takes its time to start.
zdtm() {
	wrapper=$PWD/build/zdtm/criu-uid
	mkdir -p build/zdtm
	printf '#!/bin/sh\nCRIU_LIBS_DIR=%s exec %s "$@"\n' "$PWD/build/plugin" "$tree/criu/criu" >"$wrapper"
	chmod +x "$wrapper"
	# shellcheck disable=SC2046,SC2086 # lists
	(cd "$tree/test" && timeout 180 /usr/bin/python3 ./zdtm.py run $(printf -- '-t zdtm/%s ' $tests) \
		-f "$(echo $flavours | tr ' ' ,)" --lazy-pages -k always --keep-going --criu-bin "$wrapper") >"$log" 2>&1 || :
}

# was_lazy TEST: something in each of its restores
was_lazy() {
	lazy=0
	for d in "$tree/test/dump/zdtm/$1"/*/1; do
		cp "$d/lazy-pages.log" "$RIG_KEEP/$(echo "$1-${d%/1}" | tr / - | tail -c 40).log"
		! grep -q 'lazy-shmem: object .* done: ' "$d/lazy-pages.log" || lazy=$((lazy + 1))
	done
	# shellcheck disable=SC2086 # a list
	set -- $flavours
	[ $lazy -eq $# ]
}

zdtm_results() {
	zdtm
	# shellcheck disable=SC2086 # lists
	set -- $tests
	echo "1..$(($# * $(echo "$flavours" | wc -w) + $#))"
	for t in $tests; do
		for f in $flavours; do
			name=guest/uid/zdtm-$(basename "$t")-$f
			verdict=$(sed -n "/ Run zdtm\/$(echo "$t" | sed 's|/|\\/|') in $f /,/ Test zdtm\/.* \(PASS\|FAIL\)/p" "$log" |
				sed -n 's/.* Test zdtm\/[^ ]* \(PASS\|FAIL.*[^ #]\) *[=#]*$/\1/p')
			case $verdict in
			PASS) echo "ok $name" ;;
			*) echo "not ok $name: ${verdict:-it did not run}" ;;
			esac
		done
		if was_lazy "$t"; then
			echo "ok guest/uid/zdtm-$(basename "$t")-lazy"
		else
			echo "not ok guest/uid/zdtm-$(basename "$t")-lazy: in $lazy restores of those was something lazy"
		fi
	done
}

{
	part kernel/test/guest/uid.py
	part zdtm_results
} | whole
