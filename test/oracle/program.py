# SPDX-License-Identifier: GPL-2.0-only
"""Programs of the oracle: their text (test/oracle/program.c reads it), and the
model that knows which ops may run at the same time with a defined outcome."""

from collections import namedtuple

PROT_NONE, PROT_READ, PROT_RW = 0, 1, 3
MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4
ADVICE = {"dontneed": 4, "remove": 9, "willneed": 3, "cold": 20, "pageout": 21, "populate_read": 22,
          "populate_write": 23}
DONTNEED, REMOVE = ADVICE["dontneed"], ADVICE["remove"]
POPULATE_READ, POPULATE_WRITE = ADVICE["populate_read"], ADVICE["populate_write"]
PAGE = 4096
LANES = 8
ALL_LANES = (1 << LANES) - 1
MAX_ACTORS, MAX_SLOTS = 16, 128  # program.h

Op = namedtuple("Op", "actor via name args")
Obj = namedtuple("Obj", "id kind pages tail past data")  # data: [(first, nr)]
Map = namedtuple("Map", "proc slot obj pgoff nr private prot at")


class Program:
    def __init__(self):
        self.seed = 0
        self.disk = 25
        self.objs = []
        self.procs = {}  # proc: [actors]
        self.maps = []
        self.cows = []  # (proc, slot, first, nr)
        self.steps = []  # lists of Op

    def copy(self):
        p = Program()
        p.seed, p.disk = self.seed, self.disk
        p.objs, p.maps, p.cows = list(self.objs), list(self.maps), list(self.cows)
        p.procs = {k: list(v) for k, v in self.procs.items()}
        p.steps = [list(s) for s in self.steps]
        return p

    def nr_ops(self):
        return sum(len(s) for s in self.steps)

    def text(self):
        lines = ["# SPDX-License-Identifier: GPL-2.0-only", "# seed %d" % self.seed, "disk %d" % self.disk]
        for o in self.objs:
            lines.append("obj %d %s %d %d %d" % (o.id, o.kind, o.pages, o.tail, o.past))
            lines += ["data %d %d %d" % (o.id, first, nr) for first, nr in o.data]
        for proc, actors in sorted(self.procs.items()):
            lines.append("proc %d %s" % (proc, " ".join(map(str, actors))))
        lines += ["map %d %d %d %d %d %d %d %d" % m for m in self.maps]
        lines += ["cow %d %d %d %d" % c for c in self.cows]
        lines += ["slot %d %d" % s for s in sorted(self.slot_pages().items())]
        for step in self.steps:
            lines.append("step")
            lines += ["op %d %s %s %s" % (op.actor, op.via, op.name, " ".join(map(str, op.args))) for op in step]
        return "\n".join(lines) + "\n"

    def slot_pages(self):
        """Pages of each slot that are ever mapped or touched"""
        pages = {}

        def see(slot, n):
            pages[slot] = max(pages.get(slot, 0), n)
        for m in self.maps:
            see(m.slot, m.at + m.nr)
        for op in (op for step in self.steps for op in step):
            if op.name == "remap":
                slot, first, old, new, flags, to = op.args
                see(slot, first + max(old, 0 if flags & FIXED else new))
                if flags & FIXED:
                    see(to, new)
            elif op.name in PAGE_OPS:
                see(op.args[0], op.args[1] + op.args[2])
        return pages

    @staticmethod
    def parse(text):
        p = Program()
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            if line.startswith("# seed"):
                p.seed = int(words[2])
            if words[0] == "op":
                p.steps[-1].append(Op(int(words[1]), words[2], words[3], tuple(map(int, words[4:]))))
                continue
            if words[0] == "step":
                p.steps.append([])
                continue
            if words[0] == "obj":
                p.objs.append(Obj(int(words[1]), words[2], *map(int, words[3:6]), []))
                continue
            if words[0] in ("disk", "data", "proc", "map", "cow"):
                n = list(map(int, words[1:]))
            if words[0] == "disk":
                p.disk = n[0]
            elif words[0] == "data":
                next(o for o in p.objs if o.id == n[0]).data.append((n[1], n[2]))
            elif words[0] == "proc":
                p.procs[n[0]] = n[1:]
            elif words[0] == "map":
                p.maps.append(Map(*n))
            elif words[0] == "cow":
                p.cows.append(tuple(n))
        return p


PAGE_OPS = ("load", "store", "lane", "blind", "unmap", "protect", "advise", "lock", "unlock", "anon")
BYTE_OPS = ("kwrite", "kread", "vmread", "vmwrite")
FD_OPS = ("truncate", "punch", "pread", "pwrite")

# What is mapped at a page; locked: 0 no, 1 mlock(), 2 MLOCK_ONFAULT
Ent = namedtuple("Ent", "obj page private prot locked")


def mask(first, nr, lanes=ALL_LANES):
    unit = 0
    for i in range(nr):
        unit |= lanes << (LANES * i)
    return unit << (LANES * first)


class Effects:
    """What an op looks at and what it changes: contents of objects and of private
    copies, and mappings, as masks of pages (of lanes in pages) by key."""

    def __init__(self):
        self.reads, self.writes = {}, {}

    def read(self, key, bits):
        self.reads[key] = self.reads.get(key, 0) | bits

    def write(self, key, bits):
        self.writes[key] = self.writes.get(key, 0) | bits

    def clashes(self, other):
        for a, b in ((self, other), (other, self)):
            for key, bits in a.writes.items():
                if bits & (b.writes.get(key, 0) | b.reads.get(key, 0)):
                    return True
        return False


EVERYTHING = mask(0, 4096)


class Proc:
    def __init__(self, actors):
        self.actors = list(actors)
        self.slots = {}  # slot: {page: Ent}
        self.forked = False
        self.advised = set()  # slots whose contents were given up or dropped
        self.split = set()  # slots with private mappings that may not be one any more

    def clone(self, actor):
        p = Proc([actor])
        p.slots = {s: {n: e._replace(locked=0) for n, e in pages.items()} for s, pages in self.slots.items()}
        p.split, p.advised = set(self.split), set(self.advised)
        return p


class Model:
    """The layout of all processes as the steps go on."""

    def __init__(self, program):
        self.objs = {o.id: o for o in program.objs}
        self.procs = {}
        self.used_actors = set()
        self.used_slots = {}
        for proc, actors in program.procs.items():
            self.procs[proc] = Proc(actors)
            self.used_actors |= set(actors)
            self.used_slots[proc] = set()
        for m in program.maps:
            if m.proc not in self.procs or m.obj not in self.objs:
                continue
            self.procs[m.proc].slots.setdefault(m.slot, {}).update({
                m.at + n: Ent(m.obj, m.pgoff + n, m.private, m.prot, 0) for n in range(m.nr)})
            self.used_slots[m.proc].add(m.slot)

    def proc_of(self, actor):
        return next((p for p, proc in self.procs.items() if actor in proc.actors), None)

    # effects

    def touch(self, e, p, slot, first, nr, write=False, lanes=ALL_LANES):
        pages = self.procs[p].slots.get(slot, {})
        e.read(("v", p, slot), mask(first, nr))
        for n in range(first, first + nr):
            ent = pages.get(n)
            if ent is None:
                continue
            private = ("p", p, slot), mask(n, 1)
            if ent.obj is None:
                (e.write if write else e.read)(*private)
                continue
            bits = mask(ent.page, 1, lanes)
            if ent.private:
                # to copy a page is to look at all of it
                (e.write if write else e.read)(*private)
                e.read(("o", ent.obj), mask(ent.page, 1))
            else:
                (e.write if write else e.read)(("o", ent.obj), bits)

    def effects(self, op):
        """None: can not be done (any more)"""
        p = self.proc_of(op.actor)
        if p is None:
            return None
        e = Effects()
        name, a = op.name, op.args
        if name == "blind":
            return e  # only reads, for its killer, and nobody listens
        if name in ("load", "store", "lane"):
            self.touch(e, p, *a[:3], write=name != "load", lanes=1 << a[3] if name == "lane" else ALL_LANES)
        elif name in ("unmap", "protect", "lock", "unlock", "anon"):
            if name == "lock":  # populates: breaks private copies
                self.touch(e, p, *a[:3], write=any(
                    x.private for x in self.procs[p].slots.get(a[0], {}).values()))
            e.write(("v", p, a[0]), mask(a[1], a[2]))
            if name in ("unmap", "anon"):
                e.write(("p", p, a[0]), mask(a[1], a[2]))
        elif name == "advise":
            self.effects_advise(e, p, *a)
        elif name == "remap":
            slot, first, old, new, flags, to = a
            e.read(("v", p, slot), mask(first, 1))
            e.write(("v", p, slot), mask(first, max(old, 0 if flags & FIXED else new)))
            e.write(("p", p, slot), mask(first, max(old, new)))
            if flags & FIXED:
                e.write(("v", p, to), EVERYTHING)
        elif name in BYTE_OPS:
            q = p if name in ("kwrite", "kread") else self.proc_of(a[3])
            if q is None or (q == p and name not in ("kwrite", "kread")):
                return None
            first, last = a[1] // PAGE, (a[1] + a[2] - 1) // PAGE
            self.touch(e, q, a[0], first, last - first + 1, write=name in ("kread", "vmwrite"))
        elif name in FD_OPS:
            if a[0] not in self.objs or self.objs[a[0]].kind != "fd":
                return None
            if name in ("truncate", "pwrite"):  # the size changes
                e.write(("o", a[0]), EVERYTHING)
            else:
                first, last = a[1] // PAGE, (a[1] + a[2] - 1) // PAGE
                (e.read if name == "pread" else e.write)(("o", a[0]), mask(first, last - first + 1))
        elif name == "fork":
            if a[0] in self.used_actors:
                return None
            for slot, pages in self.procs[p].slots.items():
                e.read(("v", p, slot), EVERYTHING)
                e.read(("p", p, slot), EVERYTHING)
            e.write(("new", a[0]), 1)
        elif name in ("exit", "exec", "kill"):
            if op.via == "self":
                q = self.proc_of(a[0]) if name == "kill" else p
                if q is None:
                    return None
                for slot in self.procs[q].slots:
                    e.write(("v", q, slot), EVERYTHING)
                e.write(("life", q), 1)
        e.read(("life", p), 1)
        if name in ("vmread", "vmwrite"):
            e.read(("life", self.proc_of(a[3])), 1)
        return e

    def effects_advise(self, e, p, slot, first, nr, advice):
        pages = self.procs[p].slots.get(slot, {})
        private = [n for n in range(first, first + nr) if n in pages and (pages[n].private or pages[n].obj is None)]
        e.read(("v", p, slot), mask(first, nr))
        if advice == REMOVE:
            for n in range(first, first + nr):
                if n in pages and not pages[n].private and pages[n].obj is not None:
                    e.write(("o", pages[n].obj), mask(pages[n].page, 1))
        elif advice == DONTNEED:
            for n in private:
                e.write(("p", p, slot), mask(n, 1))
        elif advice in (POPULATE_READ, POPULATE_WRITE):
            self.touch(e, p, slot, first, nr)
            if advice == POPULATE_WRITE:
                for n in private:
                    e.write(("p", p, slot), mask(n, 1))

    # what mremap() may be tried on: in one mapping, whatever came before

    def one_mapping(self, p, slot, first, nr):
        pages = self.procs[p].slots.get(slot, {})
        if slot in self.procs[p].split or first not in pages:
            return False
        e = pages[first]
        return e.obj is not None and not e.locked and all(
            pages.get(first + i) == e._replace(page=e.page + i) for i in range(nr))

    def remap_is_defined(self, op):
        p = self.proc_of(op.actor)
        slot, first, old, new, flags, to = op.args
        if not self.one_mapping(p, slot, first, max(old, 1)) or new < 1 or first + max(old, new) > 2048:
            return False
        pages = self.procs[p].slots[slot]
        if flags & FIXED:
            return to not in self.used_slots[p] and to < MAX_SLOTS
        if new > old:  # grows in place: nothing must be behind
            return not any(n >= first + old for n in pages)
        return old > 0

    def may_run(self, group):
        """Whether ops at the same time have one outcome"""
        effects = []
        actors = set()
        for op in group:
            if op.actor in actors:
                return False
            actors.add(op.actor)
            if op.name == "remap" and (self.proc_of(op.actor) is None or not self.remap_is_defined(op)):
                return False
            e = self.effects(op)
            if e is None or any(e.clashes(other) for other in effects):
                return False
            effects.append(e)
        # a blind reader is there for its killer
        dying = {self.proc_of(op.args[0]) for op in group if op.name == "kill"}
        return all(op.name != "blind" or self.proc_of(op.actor) in dying for op in group)

    # what an accepted step does to the layout

    def run(self, group):
        for op in group:
            self.run_op(op)
        for op in group:
            if op.via == "self" and op.name in ("exit", "exec"):
                self.procs.pop(self.proc_of(op.actor), None)
            elif op.name == "kill":
                self.procs.pop(self.proc_of(op.args[0]), None)

    def run_op(self, op):
        p = self.proc_of(op.actor)
        proc, a = self.procs[p], op.args
        if op.name == "fork":
            self.used_actors.add(a[0])
            proc.forked = True
            child = 100 + a[0]
            self.procs[child] = proc.clone(a[0])
            self.used_slots[child] = set(self.used_slots[p])
        elif op.name == "remap":
            self.run_remap(p, *a)
        elif op.name == "advise":
            proc.advised.add(a[0])
        elif op.name in ("unmap", "protect", "lock", "unlock", "anon"):
            self.run_change(proc, op)

    def run_change(self, proc, op):
        a = op.args
        pages = proc.slots.setdefault(a[0], {})
        if any(x.private for x in pages.values()) or op.name == "anon":
            proc.split.add(a[0])
        for n in range(a[1], a[1] + a[2]):
            if op.name == "unmap":
                pages.pop(n, None)
            elif op.name == "anon":
                pages[n] = Ent(None, 0, 1, PROT_RW, 0)
            elif n not in pages:
                proc.split.add(a[0])  # fails half way: not worth to be modelled
            elif op.name == "protect":
                pages[n] = pages[n]._replace(prot=a[3])
            else:
                pages[n] = pages[n]._replace(locked=0 if op.name == "unlock" else 1 + a[3])

    def run_remap(self, p, slot, first, old, new, flags, to):
        proc = self.procs[p]
        pages = proc.slots[slot]
        e = pages[first]
        moved = {n: e._replace(page=e.page + n) for n in range(new)}
        if e.private and (old == 0 or old != len(pages)):
            proc.split.add(slot)
        if flags & FIXED:
            self.used_slots[p].add(to)
            if e.private and not old:
                return  # EINVAL
            proc.slots[to] = moved
            if e.private:
                proc.split.add(to)
            if old and not flags & DONTUNMAP:
                for n in range(first, first + old):
                    pages.pop(n)
            return
        for n in range(new, old):
            pages.pop(first + n)
        for n in range(old, new):
            pages[first + n] = moved[n]


def is_defined(program):
    """Whether all of the program has one outcome"""
    model = Model(program)
    forks = {op.args[0] for step in program.steps for op in step if op.name == "fork"}
    if forks & model.used_actors or not program.procs:
        return False
    for step in program.steps:
        if not model.may_run(step):
            return False
        model.run(step)
    return True
