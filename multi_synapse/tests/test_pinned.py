from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

#: In a process of its own: what is pinned stays so.
_TRIAL = """
import gc, os, weakref
from multi_synapse import pinned

class Node: pass

def cycle():
    node = Node()
    node.self = node
    return node

base = [cycle() for _ in range(100_000)]
functions = [lambda value=n: value for n in range(1000)]
count = pinned.pin()
assert count > 100_000, count

# Frozen and given back, as a large shard does: what is pinned is not looked at.
mine = [cycle() for _ in range(100)]
gc.freeze()
gc.unfreeze()
assert not any(gc.is_tracked(node) for node in base)
assert all(gc.is_tracked(node) for node in mine)

# Garbage that came later is found, also where it refers to what is pinned.
lost = cycle()
lost.base = base[0]
gone = weakref.ref(lost)
del lost
gc.collect()
assert gone() is None

# What only something pinned refers to stays.
base[1].later = cycle()
kept = weakref.ref(base[1].later)
gc.collect()
assert kept() is not None

# A process that is forked goes on sharing their pages.
if os.fork() == 0:
    gc.freeze()
    gc.unfreeze()
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        own = [int(line.split()[1]) for line in file if line.startswith("Private_Dirty:")]
    os._exit(0 if own[0] < 8_000 else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0

# Pinned objects that nobody uses any more are no harm, of whichever kind they are.
del base, functions
gc.collect()
print("good")
"""


def test_what_is_pinned_stays_as_it_is_and_garbage_of_others_is_found() -> None:
    done = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, text=True, cwd=_ROOT, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", "")
