# SPDX-License-Identifier: GPL-2.0-only
"""Makes a program that shows a difference shorter, as long as it shows one."""

import time

from program import is_defined

REPEAT = 4  # a difference may be a matter of time


def without_steps(p, first, nr):
    q = p.copy()
    del q.steps[first:first + nr]
    return q


def drop_dangling(p):
    """Ops of actors that are not there any more, and mappings of such processes"""
    q = p.copy()
    q.maps = [m for m in q.maps if m.proc in q.procs]
    q.cows = [c for c in q.cows if c[0] in q.procs]
    there = {a for actors in q.procs.values() for a in actors}
    there |= {op.args[0] for s in q.steps for op in s if op.name == "fork"}
    q.steps = [[op for op in s if op.actor in there] for s in q.steps]
    q.steps = [s for s in q.steps if s]
    return q


def smaller(p):
    """Programs with something missing, the largest pieces first"""
    nr = len(p.steps)
    while nr:
        for first in range(0, len(p.steps), nr):
            yield without_steps(p, first, nr)
        nr //= 2
    for proc in p.procs:
        q = p.copy()
        del q.procs[proc]
        yield drop_dangling(q)
    for i, step in enumerate(p.steps):
        for j in range(len(step)):
            if len(step) > 1:
                q = p.copy()
                del q.steps[i][j]
                yield q
    for proc, actors in p.procs.items():
        for actor in actors[1:]:
            q = p.copy()
            q.procs[proc].remove(actor)
            yield drop_dangling(q)
    for name in ("maps", "cows"):
        for i in range(len(getattr(p, name))):
            q = p.copy()
            del getattr(q, name)[i]
            yield q
    for i, o in enumerate(p.objs):
        if not any(m.obj == o.id for m in p.maps):
            q = p.copy()
            del q.objs[i]
            yield q


def shrink(program, wrong, try_it, seconds):
    """The shortest found and what is wrong with it; try_it(program, repeat)"""
    end = time.monotonic() + seconds
    best, found = program, True
    while found and time.monotonic() < end:
        found = False
        for q in smaller(best):
            if time.monotonic() > end:
                break
            if not q.maps or not is_defined(q):
                continue
            why = try_it(q, REPEAT)
            if getattr(why, "kind", None) == wrong.kind:
                best, wrong, found = q, why, True
                break
    return best, wrong
