#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The interface of minor faults: all of it, or on a kernel without it that it
# is not there and the rest works.
# RIG_TESTS names some of its tests; without, it is all of them.
# timeout: 240

# shellcheck disable=SC2086 # names
case $RIG_KERNEL in
plain) exec build/kernel/minor --mark --timeout 60 --expect-absent ${RIG_TESTS:-} ;;
*) exec build/kernel/minor --mark --timeout 60 ${RIG_TESTS:-} ;;
esac
