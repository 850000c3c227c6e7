#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Incremental dumps and lazily restored tasks: needs soft-dirty.
#
# kernel: patched
# timeout: 120

LSHM_SLOW=5 exec kernel/test/guest/incremental.py
