"""Objects that the garbage collector never looks at again: what a process has before it knows its tenants.

A collection writes to every object that it looks at. `gc.freeze` keeps it away from all that there is, but `gc.unfreeze` gives all back
at once, a shard's tenants (whose garbage has to be found) together with the code of 1,400 modules: which takes a tenth of a second more,
and is the end of memory that forked shards share. What the collector does not track it neither looks at nor gives back; it counts
references from there as from outside, so that nothing is freed that is still used.
"""

from __future__ import annotations

import ctypes
import gc

_untrack = ctypes.PyDLL(None).PyObject_GC_UnTrack
_untrack.argtypes = [ctypes.py_object]
_untrack.restype = None

#: Kept for good: Python frees some kinds of objects in a way that only tracked ones survive.
_pinned: list[list[object]] = []


def pin() -> int:
    """Pins all objects that there are, but for garbage. @returns how many"""
    gc.collect()
    gc.unfreeze()
    objects = gc.get_objects()
    _pinned.append(objects)
    # No longer than this process lives: at its end, Python would free them one by one.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(objects))
    for each in objects:
        _untrack(each)
    _untrack(objects)
    return len(objects)
