# SPDX-License-Identifier: GPL-2.0-only
#
# Included by the Makefile: the kernel's series, and the rig that boots it.

KERNEL_GIT := build/linux-git

# FLAVOUR is a fragment in kernel/config, besides base. KERNEL_SRC is any tree
# of Linux, to be used instead of ours.
FLAVOUR    ?= base
KERNEL_SRC ?=
ACCEL      ?= auto
# Each tree of others has objects of its own.
foreign    := $(if $(KERNEL_SRC),foreign-$(shell realpath '$(KERNEL_SRC)' | cksum | cut -d' ' -f1))
KIND       ?= $(or $(foreign),patched)

kernel_kinds  := $(or $(foreign),plain patched)
kernel_images := $(kernel_kinds:%=build/kernel/$(FLAVOUR)-%/bzImage)
kernel_config := kernel/config/base.config \
	$(if $(filter-out base,$(FLAVOUR)),kernel/config/$(FLAVOUR).config)

# The scripts of a series know which one by these.
kernel_env = BASE_NAME=Linux BASE_VERSION=$(KERNEL_VERSION) BASE_SHA256=$(KERNEL_SHA256) \
	BASE_TARBALL=$(KERNEL_ARCHIVE) SERIES_DIR=$(KERNEL_SERIES) PATCHES=patches SERIES_TARGETS=kernel

build/.deps-kernel: scripts/deps.sh
	$(Q)sh scripts/deps.sh install kernel
	$(Q)mkdir -p build && touch $@

$(KERNEL_ARCHIVE): | build/.deps build/.deps-kernel
	$(Q)sh scripts/fetch-kernel.sh $@ $(KERNEL_SHA256) $(KERNEL_VERSION) $(KERNEL_SUITE)

#
# Two trees, and of each a kernel. As with CRIU's, content decides what is
# made again, and that is as little as can be.
#
build/kernel/.archive.key: FORCE
	$(Q)mkdir -p $(@D)
	$(call when_changed,echo $(KERNEL_SHA256))
build/kernel/.series.key: FORCE
	$(Q)mkdir -p $(@D)
	$(call when_changed,cat $(KERNEL_SERIES)/series $(KERNEL_SERIES)/patches/* 2>/dev/null | sha256sum)
build/kernel/.$(FLAVOUR).key: FORCE
	$(Q)mkdir -p $(@D)
	$(call when_changed,cat $(kernel_config) kernel/rig/build.sh | sha256sum; gcc --version | head -n 1)

build/kernel/src-patched/.tree: build/kernel/.series.key
build/kernel/src-plain/.tree build/kernel/src-patched/.tree: build/kernel/src-%/.tree: build/kernel/.archive.key kernel/rig/tree.sh | $(KERNEL_ARCHIVE)
	$(Q)$(kernel_env) sh kernel/rig/tree.sh $(@D) $* $(wildcard build/kernel/*-$*)
	$(Q)touch $@

build/kernel/$(FLAVOUR)-plain/bzImage build/kernel/$(FLAVOUR)-patched/bzImage: \
		build/kernel/$(FLAVOUR)-%/bzImage: build/kernel/src-%/.tree build/kernel/.$(FLAVOUR).key | build/.deps-kernel
	@echo 'kernel $(FLAVOUR)-$*:'
	$(Q)nice -n 5 sh kernel/rig/build.sh build/kernel/src-$* $(@D) $(kernel_config)

# Whether a tree that is not ours has changed is for its own makefiles to see.
build/kernel/$(FLAVOUR)-$(or $(foreign),foreign)/bzImage: FORCE | build/.deps build/.deps-kernel
	@echo 'kernel $(FLAVOUR)-$(foreign): $(KERNEL_SRC)'
	$(Q)nice -n 5 sh kernel/rig/build.sh -f '$(KERNEL_SRC)' $(@D) $(kernel_config)

.PHONY: kernel test-kernel kernel-shell
kernel: $(kernel_images)
test-kernel: $(kernel_images) kernel-tests
	$(Q)MAKEFLAGS= FLAVOUR=$(FLAVOUR) ACCEL=$(ACCEL) KINDS='$(kernel_kinds)' \
		SRC='$(or $(KERNEL_SRC),build/kernel/src-plain)' sh kernel/rig/test.sh $(T)
kernel-shell: build/kernel/$(FLAVOUR)-$(KIND)/bzImage kernel-tests
	$(Q)kernel/rig/boot.py --shell --run build/kernel/shell $<

# What the guest's tests run, which is built here.
.PHONY: kernel-tests
kernel-tests: all criu-plain $(RIG) build/kernel/minor
	$(Q)MAKEFLAGS= sh kernel/test/build.sh

#
# The series.
#
.PHONY: kernel-import kernel-export kernel-roundtrip kernel-verify kernel-mutate
kernel-import: | $(KERNEL_ARCHIVE)
	$(Q)$(kernel_env) sh scripts/patches-import.sh $(KERNEL_GIT)
kernel-export: | build/.deps
	$(Q)$(kernel_env) sh scripts/patches-export.sh $(KERNEL_GIT)
kernel-roundtrip: | $(KERNEL_ARCHIVE)
	$(Q)$(kernel_env) sh scripts/patches-roundtrip.sh build/kernel/roundtrip
kernel-verify: build/kernel/minor | $(KERNEL_ARCHIVE)
	$(Q)MAKEFLAGS= $(kernel_env) sh kernel/rig/verify.sh build/kernel/verify $(kernel_config)
kernel-mutate: build/kernel/minor | $(KERNEL_ARCHIVE)
	$(Q)MAKEFLAGS= $(kernel_env) sh kernel/rig/mutate.sh build/kernel/mutated $(kernel_config) -- $(M)
