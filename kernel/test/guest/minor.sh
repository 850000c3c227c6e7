#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The interface of minor faults: all of it, or on a kernel without it that it
# is not there and the rest works.
# timeout: 240

case $RIG_KERNEL in
plain) exec build/kernel/minor --mark --timeout 60 --expect-absent ;;
*) exec build/kernel/minor --mark --timeout 60 ;;
esac
