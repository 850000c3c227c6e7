# SPDX-License-Identifier: GPL-2.0-only
"""Makes a random program from a seed."""

import random

from program import (ADVICE, DONTNEED, DONTUNMAP, FD_OPS, FIXED, LANES, MAX_ACTORS, MAX_SLOTS, MAYMOVE, Map, Model, Obj,
                     Op, PAGE, POPULATE_READ, POPULATE_WRITE, PROT_NONE, PROT_READ, PROT_RW, Program, REMOVE)

MAX_TOTAL_PAGES = 2048
VIA_OPS = ("load", "store", "advise", "unmap", "protect", "remap", "exec")


class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)
        # tasks that map different things at the same addresses
        self.same_addresses = self.chance(0.3)
        self.p = Program()
        self.p.seed = seed
        self.make_objects()
        self.make_processes()
        self.make_disk()
        self.beside = None  # a place beside one that was at an end
        self.model = Model(self.p)
        self.pressure = self.r.choice((0.1, 0.5, 0.9))  # of steps with several actors
        for _ in range(self.r.choice((8, 20, 35))):
            self.make_step()

    def chance(self, p):
        return self.r.random() < p

    # what there is before the dump

    def make_objects(self):
        left = MAX_TOTAL_PAGES
        for i in range(self.r.choice((1, 1, 2, 2, 3, 4))):
            pages = min(left, self.r.choice((self.r.randint(1, 40), self.r.randint(60, 70), self.r.randint(100, 400),
                                             self.r.randint(127, 129), self.r.randint(400, 1024))))
            if not pages:
                break
            left -= pages
            kind = self.r.choice(("anon", "anon", "memfd", "memfd", "fd")) if i else self.r.choice(("anon", "memfd"))
            tail = self.r.randint(1, PAGE - 1) if kind != "anon" and self.chance(0.4) else 0
            past = int(bool(tail) and self.chance(0.5))
            self.p.objs.append(Obj(i, kind, pages, tail, past, self.make_data(pages)))

    def make_data(self, pages):
        if self.chance(0.6):
            return [(0, pages)]
        runs, at = [], 0
        while at < pages:
            nr = min(pages - at, self.r.choice((1, 2, self.r.randint(1, 30), self.r.randint(30, 200))))
            if self.chance(0.6):
                runs.append((at, nr))
            at += nr
            at += self.r.choice((0, 1, self.r.randint(1, 40)))
        return runs or [(0, 1)]

    def make_processes(self):
        actor = 0
        for proc in range(self.r.choice((1, 2, 2, 3, 4))):
            threads = self.r.choice((1, 1, 2, 3))
            self.p.procs[proc] = list(range(actor, actor + threads))
            actor += threads
            slots = list(range(5)) if self.same_addresses else list(range(5 * proc, 5 * proc + 5))
            self.r.shuffle(slots)
            slots = iter(slots)
            slot, end = next(slots), 0
            for n in range(self.r.choice((1, 2, 3, 4))):
                if n and self.chance(0.7):
                    slot, end = next(slots), 0
                end = self.make_mapping(proc, slot, end, self.p.objs[0] if not n else self.r.choice(self.p.objs))

    def make_mapping(self, proc, slot, at, obj):
        """Returns where a neighbour can be put"""
        pgoff, nr = 0, obj.pages
        if self.chance(0.4):
            pgoff = self.r.randrange(obj.pages)
            nr = self.r.randint(1, obj.pages - pgoff)
        elif obj.kind != "anon" and self.chance(0.1):
            nr += self.r.randint(1, 20)  # beyond the end
        private = int(obj.kind != "anon" and self.chance(0.3))
        prot = self.r.choice((PROT_RW,) * 7 + (PROT_READ, PROT_NONE))
        self.p.maps.append(Map(proc, slot, obj.id, pgoff, nr, private, prot, at))
        if private and prot == PROT_RW and self.chance(0.6):
            end = min(nr, obj.pages - pgoff)
            first = self.r.randrange(end)
            self.p.cows.append((proc, slot, at + first, self.r.randint(1, min(40, end - first))))
        return at + nr

    def make_disk(self):
        """So that the window is open for so long"""
        mapped = {m.obj for m in self.p.maps}
        bytes_ = sum(nr * PAGE for o in self.p.objs if o.id in mapped for _, nr in o.data)
        window = self.r.choice((0.03, 0.08, 0.2))
        self.p.disk = max(1, int(bytes_ / window / 2 / 1e6))

    # steps

    def make_step(self):
        actors = [a for proc in self.model.procs.values() for a in proc.actors]
        if not actors:
            return
        group = []
        self.focus = None
        if self.chance(0.04) and len(self.model.procs) > 1:
            group = self.make_kill()
        wanted = self.r.randint(2, len(actors)) if len(actors) > 1 and self.chance(self.pressure) else 1
        self.theme = self.r.choice(("any", "any", "any", "lane", "reads", "remove"))
        for _ in range(wanted * 3):
            if len(group) >= wanted:
                break
            free = [a for a in actors if a not in {op.actor for op in group}]
            if not free:
                break
            op = self.make_op(self.r.choice(free))
            if op and self.model.may_run(group + [op]):
                group.append(op)
        if group:
            self.r.shuffle(group)
            self.model.run(group)
            self.p.steps.append(group)

    def make_kill(self):
        """Somebody is killed while it waits for pages"""
        victim, killer = self.r.sample(sorted(self.model.procs), 2)
        proc = self.model.procs[victim]
        group = [Op(self.r.choice(self.model.procs[killer].actors), "self", "kill", (proc.actors[0],))]
        for actor in proc.actors:
            place = self.make_place(victim)
            if place:
                pages = self.model.procs[victim].slots[place[0]]
                group.append(Op(actor, "self", "blind", (place[0], 0, 1 + max(pages))))
        return group if self.model.may_run(group) else []

    def make_place(self, p):
        """SLOT, PAGE, NR in memory of a process, now and then beyond it"""
        slots = [s for s, pages in self.model.procs[p].slots.items() if pages]
        if not slots:
            return None
        if self.focus and self.focus[0] in slots and self.chance(0.7):
            slot, first, nr = self.focus
        else:
            slot = self.r.choice(slots)
            if self.beside and self.beside[0] in slots and self.chance(0.5):
                self.focus, self.beside = self.beside, None
                return self.focus
            if self.chance(0.3):
                edge = self.make_edge(p, slot)
                if edge is not None:
                    self.focus = (slot, edge, 1)
                    self.beside = (slot, max(0, edge + self.r.choice((-1, 1))), 1)
                    return self.focus
            pages = self.model.procs[p].slots[slot]
            lo, hi = min(pages), max(pages) + 1
            first = self.r.choice((lo, self.r.randrange(lo, hi), self.r.randrange(lo, hi), max(lo, hi - 3)))
            if self.chance(0.2):
                first = first & ~63
            nr = self.r.choice((1, 1, self.r.randint(1, 5), self.r.randint(1, 70), self.r.randint(1, 300), hi - lo))
            nr = max(1, min(nr, hi - first + (3 if self.chance(0.05) else 0)))
        self.focus = (slot, first, nr)
        return slot, first, nr

    def make_edge(self, p, slot):
        """A page at an end of what is filled at once: 128 pages, or a window of 64"""
        starts = {o.id: [first for first, _ in o.data] for o in self.p.objs}
        edges = []
        for n, e in self.model.procs[p].slots[slot].items():
            if e.obj is None:
                continue
            run = max((first for first in starts[e.obj] if first <= e.page), default=0)
            if (e.page - run) % 128 in (0, 127) or e.page % 64 in (0, 63):
                edges.append(n)
        return self.r.choice(edges) if edges else None

    def make_op(self, actor):
        p = self.model.proc_of(actor)
        names = {
            "any": ["load"] * 8 + ["store"] * 5 + ["lane"] * 2 + ["unmap"] * 2 + ["protect"] * 3 + ["advise"] * 10 +
                   ["remap"] * 5 + ["kwrite"] * 3 + ["kread"] * 3 + ["vmread"] * 3 + ["vmwrite"] * 2 +
                   ["lock"] + ["unlock"] + ["anon"] + ["fork"] * 2 + ["fd"] * 3 + ["end"],
            "lane": ["lane"] * 5 + ["advise_keep", "fork"],
            "reads": ["load"] * 4 + ["kwrite", "vmread", "advise_keep", "fork"],
            "remove": ["advise"] * 3 + ["remove"] * 2 + ["load", "store"],
        }[self.theme]
        name = self.r.choice(names)
        if name == "end":
            return self.make_end(actor)
        if name == "fd":
            return self.make_fd_op(actor)
        if name == "fork":
            free = set(range(MAX_ACTORS)) - self.model.used_actors
            return Op(actor, "self", "fork", (min(free),)) if free and len(self.model.procs) < 6 else None
        other = None
        if name in ("vmread", "vmwrite"):
            other = self.r.choice(sorted(self.model.procs))
            place = self.make_place(other)
            other = self.model.procs[other].actors[0]
        else:
            place = self.make_place(p)
        if not place:
            return None
        op = self.make_memory_op(actor, name, place, other)
        if op and self.chance(0.12) and op.name in VIA_OPS:
            op = op._replace(via=self.r.choice(("vfork", "clone")))
        return op

    def make_memory_op(self, actor, name, place, other):
        slot, first, nr = place
        p = self.model.proc_of(actor)
        if name in ("kwrite", "kread", "vmread", "vmwrite"):
            offset = first * PAGE + self.r.choice((0, 0, self.r.randrange(PAGE)))
            length = self.r.choice((8, self.r.randint(1, PAGE), min(nr, 15) * PAGE, self.r.randint(1, 15 * PAGE)))
            seed = (self.r.randrange(1 << 20),) if name in ("kread", "vmwrite") else ()
            return Op(actor, "self", name, (slot, offset, length) + (() if other is None else (other,)) + seed)
        extra = {
            "store": lambda: (self.r.randrange(1 << 20),),
            "lane": lambda: (actor % LANES,),
            "protect": lambda: (self.r.choice((PROT_NONE, PROT_READ, PROT_RW, PROT_RW)),),
            "advise": lambda: (self.r.choice((DONTNEED,) * 4 + (REMOVE,) * 4 + tuple(ADVICE.values())),),
            "advise_keep": lambda: (self.r.choice((DONTNEED, DONTNEED, POPULATE_READ, POPULATE_WRITE,
                                                 ADVICE["cold"])),),
            "remove": lambda: (REMOVE,),
            "lock": lambda: (self.r.randrange(2),),
        }.get(name, lambda: ())
        if name == "remap":
            return self.make_remap(actor, slot, first, nr)
        return Op(actor, "self", {"advise_keep": "advise", "remove": "advise"}.get(name, name),
                  (slot, first, nr) + extra())

    def make_remap(self, actor, slot, first, nr):
        p = self.model.proc_of(actor)
        pages = self.model.procs[p].slots[slot]
        free = sorted(set(range(MAX_SLOTS)) - self.model.used_slots[p])
        kind = self.r.choice(("move", "dup", "dontunmap", "grow", "shrink", "move_grow", "move_shrink"))
        if self.chance(0.5) and kind != "grow":
            first, nr = min(pages), max(pages) + 1 - min(pages)
        if kind in ("move", "dup", "dontunmap", "move_grow", "move_shrink"):
            if not free:
                return None
            new = nr
            if kind == "move_grow" or kind == "dup" and self.chance(0.3):
                new = nr + self.r.randint(1, 80)
            elif kind == "move_shrink":
                new = self.r.randint(1, nr)
            return Op(actor, "self", "remap", (slot, first, 0 if kind == "dup" else nr, new, MAYMOVE | FIXED |
                                               (DONTUNMAP if kind == "dontunmap" else 0), free[0]))
        if kind == "grow":
            nr = max(pages) + 1 - first if first in pages else 0
            return Op(actor, "self", "remap", (slot, first, nr, nr + self.r.randint(1, 80), 0, 0)) if nr else None
        return Op(actor, "self", "remap", (slot, first, nr, self.r.randint(1, nr), 0, 0))

    def make_fd_op(self, actor):
        objs = [o for o in self.p.objs if o.kind == "fd"]
        if not objs:
            return None
        o = self.r.choice(objs)
        size = o.pages * PAGE
        name = self.r.choice(FD_OPS)
        if name == "truncate":
            length = self.r.choice((0, size, self.r.randrange(size), self.r.randrange(size)))
            return Op(actor, "self", name, (o.id, length))
        offset = self.r.choice((0, self.r.randrange(o.pages) * PAGE, self.r.randrange(size)))
        length = self.r.randint(1, 15 * PAGE)
        if name == "punch" and self.chance(0.5):
            length = (1 + length // PAGE) * PAGE
        seed = (self.r.randrange(1 << 20),) if name == "pwrite" else ()
        return Op(actor, "self", name, (o.id, offset, length) + seed)

    def make_end(self, actor):
        name = self.r.choice(("exit", "exec", "exec"))
        if name == "exec" and self.chance(0.6):
            return Op(actor, self.r.choice(("vfork", "clone")), "exec", ())
        return Op(actor, "self", name, ()) if len(self.model.procs) > 1 else None


def generate(seed):
    return Generator(seed).p
