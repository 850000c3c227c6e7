# SPDX-License-Identifier: GPL-2.0-only
#
# Builds CRIU with our series, and the plugin; 'make help' lists the rest.
# Whatever is made lies under build/.

# The release that criu-patches/ is made for, and the Debian suite with its
# source. The scripts use no other.
export BASE_NAME    := CRIU
export BASE_VERSION := 4.1.1
export BASE_SHA256  := f80a66cb3726bb2116266d4759ce3bcbfab7abdb6b6d430bf20dd41911717afe
BASE_SUITE          := trixie
export BASE_TARBALL := build/criu-$(BASE_VERSION).tar.xz
export SERIES_DIR   := criu-patches
export PATCHES      :=
export SERIES_TARGETS := patches

# The same for the kernel: the archive in Debian's linux-source-5.10.
KERNEL_VERSION := 5.10.223-1
KERNEL_SHA256  := 4aa4fbb62e2d957ed78841347492e736cc88f00689b57dac09959bda6d2b6f0e
KERNEL_SUITE   := bullseye
KERNEL_ARCHIVE := build/linux-$(KERNEL_VERSION).tar.xz
KERNEL_SERIES  := kernel/5.10

# CRIU looks for plugins in PLUGINDIR, which is compiled in: give the same
# PREFIX or PLUGINDIR to 'make' and to 'make install', or CRIU is relinked.
PREFIX    ?= /usr/local
PLUGINDIR ?= $(PREFIX)/lib/criu
MANDIR    ?= $(PREFIX)/share/man
DESTDIR   ?=

PYTHON := /usr/bin/python3
SHELL  := /bin/sh
Q      := $(if $(V),,@)

CRIU    := build/criu
PLAIN   := build/criu-plain
GIT     := build/criu-git
PLUGIN  := build/plugin/lazy_shmem.so
OBJECTS := $(patsubst plugin/%.c,build/plugin/%.o,$(wildcard plugin/*.c)) build/plugin/order.pb-c.o
MANS    := $(wildcard docs/man/*.[178])

ARCH := $(shell uname -m | sed -e 's/x86_64/x86/' -e 's/ppc64.*/ppc64/' -e 's/armv.*/arm/')
# With no -j of our own make gets one job per processor.
jobs   = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))
BUILD_CRIU = $(MAKE) --no-print-directory $(jobs) PYTHON=$(PYTHON) PLUGINDIR=$(PLUGINDIR) -C

PLUGIN_CFLAGS := -std=gnu11 -g -O2 -fPIC -pthread -Wall -Wextra -Werror

.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += -r

.PHONY: all
all: $(CRIU)/criu/criu $(PLUGIN)

#
# What the machine needs. The check is remembered until deps.sh changes.
#
.PHONY: deps
deps:
	$(Q)sh scripts/deps.sh install
	$(Q)mkdir -p build && touch build/.deps

build/.deps: scripts/deps.sh
	$(Q)sh scripts/deps.sh install
	$(Q)mkdir -p build && touch $@

build/.deps-bench: scripts/deps.sh
	$(Q)sh scripts/deps.sh install bench
	$(Q)mkdir -p build && touch $@

$(BASE_TARBALL): | build/.deps
	$(Q)sh scripts/fetch-criu.sh $@ $(BASE_SHA256) $(BASE_VERSION) $(BASE_SUITE)

#
# Two trees of CRIU. A tree is made afresh when what it is made of, by
# content, has changed; when only PLUGINDIR has, two files are compiled.
#
.PHONY: FORCE
FORCE:

define when_changed
	$(Q)mkdir -p build; { $(1); } >$@.tmp; cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@
endef

build/.base.key: FORCE
	$(call when_changed,echo $(BASE_SHA256))
build/.series.key: FORCE
	$(call when_changed,cat criu-patches/series criu-patches/*.patch 2>/dev/null | sha256sum)
build/.plugindir.key: FORCE
	$(call when_changed,echo '$(PLUGINDIR)')

$(CRIU)/.tree: build/.series.key
$(CRIU)/.tree: kind := patched
$(PLAIN)/.tree: kind := plain
$(CRIU)/.tree $(PLAIN)/.tree: build/.base.key | $(BASE_TARBALL)
	$(Q)sh scripts/patches-tree.sh $(@D) $(kind)
	$(Q)touch $@

$(CRIU)/criu/criu $(PLAIN)/criu/criu: build/%/criu/criu: build/%/.tree build/.plugindir.key
	$(Q)rm -f $(@D)/plugin.o $(@D)/crtools.o
	$(Q)$(BUILD_CRIU) build/$* criu </dev/null >build/$*.log 2>&1 || \
		{ tail -n 40 build/$*.log; echo 'whole log: build/$*.log'; exit 1; } >&2
	$(Q)touch $@
	@echo 'built $@'

.PHONY: criu-plain
criu-plain: $(PLAIN)/criu/criu

#
# The plugin.
#
build/plugin/flags: $(CRIU)/.tree scripts/plugin-env.sh | $(CRIU)/criu/criu
	$(Q)sh scripts/plugin-env.sh $(CRIU) $(ARCH) $@

# What protoc-c makes is built with the warnings that CRIU builds its own with.
build/plugin/%.pb-c.c: plugin/%.proto build/plugin/flags
	$(Q)protoc-c --proto_path=plugin --c_out=$(@D) $<
build/plugin/%.pb-c.o: build/plugin/%.pb-c.c
	$(Q)$(CC) $(filter-out -Wextra,$(PLUGIN_CFLAGS)) -c -o $@ $<
build/plugin/order.o: build/plugin/order.pb-c.c

build/plugin/%.o: plugin/%.c build/plugin/flags Makefile
	$(Q)$(CC) $(PLUGIN_CFLAGS) @build/plugin/flags -MMD -MP -c -o $@ $<

$(PLUGIN): $(OBJECTS)
	$(Q)$(CC) $(PLUGIN_CFLAGS) $(LDFLAGS) -shared -Wl,-Bsymbolic -o $@ $^ -lprotobuf-c
	@echo 'built $@'

-include $(OBJECTS:.o=.d)

#
# What demo and tests run: the ledger, shims, and CRIU's python module for images.
#
RIG := build/demo/ledger build/e2e/mapper build/e2e/slow_disk.so $(patsubst test/e2e/%.c,build/e2e/%.so,$(wildcard test/e2e/*.c)) \
	build/oracle/oracle build/.pycriu
RIG += build/e2e/leftovers build/e2e/writer build/e2e/sharer build/e2e/machine build/e2e/migrant build/e2e/scatter build/demo/kv
TOOL_CFLAGS := -std=gnu11 -g -O2 -Wall -Wextra -Werror -D_GNU_SOURCE

build/demo/%: demo/%.c Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -o $@ $<

build/bench/%: bench/%.c Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -pthread -o $@ $<

build/bench/copy: bench/copy.c bench/copy_ways.c bench/copy.h Makefile | build/.deps-bench
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -pthread -o $@ $(filter %.c,$^) -luring

build/bench/holder build/bench/mapper: bench/known.h

build/bench/touch build/bench/copy_handler: build/bench/%: bench/%.c bench/touching.h Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -pthread -o $@ $< -lm

build/e2e/mapper build/e2e/leftovers build/e2e/writer build/e2e/machine build/e2e/migrant build/e2e/scatter: build/e2e/%: test/lib/%.c Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -pthread -o $@ $<

# In a container it is alone.
build/e2e/sharer: test/lib/sharer.c Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -static -o $@ $<

build/e2e/%.so: test/lib/%.c Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -fPIC -shared -o $@ $< -ldl

build/e2e/%.so: test/e2e/%.c Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -fPIC -shared -o $@ $< -ldl

build/oracle/oracle: $(wildcard test/oracle/*.c) test/oracle/program.h Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -pthread -o $@ $(filter %.c,$^)

# What the kernel offers, as a test of its own: kernel/test.
build/kernel/minor: $(wildcard kernel/test/*.c kernel/test/*.h) Makefile | build/.deps
	$(Q)mkdir -p $(@D) && $(CC) $(TOOL_CFLAGS) -pthread -o $@ $(filter %.c,$^)

build/.pycriu: $(CRIU)/criu/criu
	$(Q)$(BUILD_CRIU) $(CRIU) lib </dev/null >build/pycriu.log 2>&1 || { tail -n 20 build/pycriu.log; exit 1; } >&2
	$(Q)touch $@

#
# The series.
#
.PHONY: patches-import patches-export patches-roundtrip patches-verify
patches-import: | $(BASE_TARBALL)
	$(Q)sh scripts/patches-import.sh $(GIT)
patches-export: | build/.deps
	$(Q)sh scripts/patches-export.sh $(GIT)
patches-roundtrip: | $(BASE_TARBALL)
	$(Q)sh scripts/patches-roundtrip.sh build/roundtrip
patches-verify: | $(BASE_TARBALL)
	$(Q)MAKEFLAGS= sh scripts/patches-verify.sh build/verify -j$(shell nproc) PYTHON=$(PYTHON)

include kernel/rig/kernel.mk

#
# Checks. What they build with make wants its built-in rules, which we do without.
#
.PHONY: test test-upstream oracle soak soak-migrate demo demo-migrate bench bench-quick bench-transfer lint
test: all criu-plain $(RIG)
	$(Q)MAKEFLAGS= sh test/run.sh $(T)
test-upstream: all criu-plain
	$(Q)MAKEFLAGS= test/upstream.sh
	$(Q)MAKEFLAGS= test/upstream.sh -s
oracle: all $(RIG)
	$(Q)test/oracle/oracle.py --seeds $(or $(SEEDS),2000) --first-seed $(or $(FIRST),1)
soak: all $(RIG)
	$(Q)test/oracle/oracle.py --seconds $(or $(SECONDS),600) --first-seed $(or $(FIRST),$$(date +%s))
demo: all criu-plain $(RIG)
	$(Q)MAKEFLAGS= demo/demo.sh
demo-migrate: all criu-plain $(RIG)
	$(Q)MAKEFLAGS= demo/migrate.sh
soak-migrate: all $(RIG)
	$(Q)MAKEFLAGS= MIGRATIONS=$(or $(MIGRATIONS),20) test/e2e/migrate.py cut_at_random_moments
bench-transfer: all build/bench/transfer $(RIG)
	$(Q)MAKEFLAGS= bench/transfer.py
BENCH := $(patsubst %,build/bench/%,holder mapper copy touch copy_handler)
bench: all criu-plain build/.deps-bench $(BENCH) $(RIG)
	$(Q)MAKEFLAGS= bench/run.py $(T)
bench-quick: all criu-plain build/.deps-bench $(BENCH) $(RIG)
	$(Q)MAKEFLAGS= bench/run.py -q $(T)
lint: build/plugin/flags build/plugin/order.pb-c.c
	$(Q)sh scripts/lint.sh build/plugin/flags

#
# Installing. uninstall removes these files, and PLUGINDIR if it is empty.
#
man_dest = $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(1)))/$(notdir $(1))

.PHONY: install uninstall
install: all
	install -D -m 755 $(CRIU)/criu/criu $(DESTDIR)$(PREFIX)/sbin/criu
	install -D -m 755 $(PLUGIN) $(DESTDIR)$(PLUGINDIR)/$(notdir $(PLUGIN))
	$(Q)set -e; $(foreach m,$(MANS),install -D -m 644 $(m) $(call man_dest,$(m));)
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/criu $(DESTDIR)$(PLUGINDIR)/$(notdir $(PLUGIN))
	rm -f $(foreach m,$(MANS),$(call man_dest,$(m)))
	-$(Q)rmdir --ignore-fail-on-non-empty $(DESTDIR)$(PLUGINDIR)

.PHONY: clean distclean
clean:
	rm -rf $(CRIU) $(PLAIN) build/plugin build/kernel build/verify build/roundtrip \
		build/test* build/demo* build/*.log build/*.new build/.*.key
distclean:
	$(Q). scripts/series.sh; self=distclean; [ ! -d $(GIT) ] || ! unexported $(GIT) || \
		die 'the work above in $(GIT) is not in the series: make patches-export, or delete it'; \
	[ ! -d $(KERNEL_GIT) ] || ! unexported $(KERNEL_GIT) || \
		die 'the work above in $(KERNEL_GIT) is not in the series: make kernel-export, or delete it'
	rm -rf build

.PHONY: help
help:
	@sed -n 's/^#: //p' Makefile

#: make TARGET [V=1]
#:
#: all                the default: CRIU with the series, and the plugin
#: deps               install the Debian packages that are missing (root)
#: criu-plain         CRIU without the series, to compare with (build/criu-plain)
#: patches-import     the series as git commits to work on (build/criu-git)
#: patches-export     write criu-patches/ from those commits
#: patches-roundtrip  is criu-patches/ what import and export make of it?
#: patches-verify     does CRIU build after each patch, none applied with fuzz?
#: test [T=GROUPS]    our tests: unit, e2e, oracle, zdtm, or e2e/NAME for one of them
#: kernel-mutate [M=X] break the kernel's series in one place after the other: is each noticed?
#: test-upstream      CRIU's own tests with the patched CRIU and the plugin, and a control
#: oracle [SEEDS=N]   random programs, FIRST=S: from that seed on; see test/oracle
#: soak [SECONDS=N]   random programs for so long, never the same
#: lint               style and static analysis
#: demo               see a restore that does not wait for its shared memory
#: demo-migrate       a service moves to another machine: lazily, and by unpatched CRIU
#: soak-migrate [MIGRATIONS=N]  migrations with the connection cut at a random moment
#: bench-transfer     shared memory over the network, and a plain send and recv
#: bench [T=NAMES]    how fast: restore, fill, faults; beside unpatched CRIU and plain copies
#: bench-quick        the same in under three minutes, with fewer sizes
#: test-kernel [T=X]  boot Linux 5.10 with and without kernel/5.10, run kernel/test/guest
#:                    in it; FLAVOUR=debug, KERNEL_SRC=TREE, ACCEL=kvm: kernel/README.md
#: kernel             only build these kernels
#: kernel-shell       a shell in the guest, KIND=plain or patched
#: kernel-import      the kernel's series as git commits to work on (build/linux-git)
#: kernel-export      write kernel/5.10 from those commits
#: kernel-roundtrip   is kernel/5.10 what import and export make of it?
#: kernel-verify      does the kernel build, without new warnings, and boot after each patch?
#: install            CRIU, plugin, man pages: PREFIX, PLUGINDIR, DESTDIR
#: uninstall          remove what install put there
#: clean              remove what was built; keeps the tarballs and the git trees
#: distclean          remove build/
