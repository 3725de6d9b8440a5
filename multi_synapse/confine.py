"""
Runs a program that can reach nothing but what it is told: as a user of its own, with limits, without any capability, and with the
kernel's rules for files (Landlock), which hold for everything it starts.

`python -I confine.py SPEC PROGRAM ARGUMENT…`; SPEC is JSON, see `Spec`. `python -I confine.py --probe` prints what the kernel offers.
Runs before anything else in the process, with the standard library alone, and is replaced by the program.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import stat
import sys
from typing import Any, TypedDict


class Spec(TypedDict, total=False):
    #: The user and group to become; absent: stay who we are.
    uid: int
    gid: int
    groups: list[int]
    umask: int
    #: Names of RLIMIT_… in lower case, each with its most; a lower limit that is there already stays.
    limits: dict[str, int]
    #: Files and directories that may be read, and executed where their mode says so.
    read: list[str]
    #: Directories in which everything may be done, and files that may be written.
    write: list[str]
    #: Without it, `read` and `write` mean nothing.
    landlock: bool


_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522

# The numbers of these calls are the same on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
#: All but the making of device files, which nobody needs.
_CHANGE_DIR = sum(1 << bit for bit in (4, 5, 7, 8, 9, 10, 12))
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _READ_FILE | _READ_DIR | _WRITE_FILE | _CHANGE_DIR | _REFER | _TRUNCATE
#: Rights by the version of Landlock that knows them first, and how many there are then.
_KNOWN = {1: 13, 2: 14, 3: 15, 4: 15}
_MOST_KNOWN = 16
_SCOPE_VERSION = 6
_SCOPES = 0b11

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("directory", ctypes.c_int32))


def landlock_version() -> int:
    """0 where the kernel has none, or it is switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)))


def main() -> None:
    if sys.argv[1:] == ["--probe"]:
        print(json.dumps({"landlock": landlock_version()}))
        return
    spec: Spec = json.loads(sys.argv[1])
    program = sys.argv[2:]
    confine(spec)
    os.execv(program[0], program)  # noqa: S606


def confine(spec: Spec) -> None:
    """In this order: what comes later needs rights that what comes before leaves. @raises OSError"""
    for name, most in spec.get("limits", {}).items():
        _limit(getattr(resource, f"RLIMIT_{name.upper()}"), most)
    if "umask" in spec:
        os.umask(spec["umask"])
    if os.geteuid() == 0:
        _drop_capabilities()
    if "uid" in spec:
        os.setgroups(spec.get("groups", []))
        os.setresgid(spec["gid"], spec["gid"], spec["gid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    _call(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if spec.get("landlock"):
        _restrict(spec.get("read", []), spec.get("write", []))


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (allowed, allowed))


def _drop_capabilities() -> None:
    """From what a program may gain when it is started; so root's own are gone with the next one."""
    for number in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # The last one there is was before.


def leave_privileges() -> None:
    """Drops root's capabilities in a confined process that no other program takes the place of, which would drop them. @raises OSError"""
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    _call(_libc.capset(header, none), "capset")
    # A change of user closes /proc of the process to its own user, and so to its watchdog, until it starts another program.
    _call(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")


def _restrict(read: list[str], write: list[str]) -> None:
    version = landlock_version()
    handled = (1 << _KNOWN.get(version, _MOST_KNOWN)) - 1
    ruleset = _Ruleset(handled, 0, _SCOPES if version >= _SCOPE_VERSION else 0)
    # Earlier versions refuse a structure that has more than they know.
    size = 24 if version >= _SCOPE_VERSION else 8
    handle = _call(_libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0), "landlock_create_ruleset")
    try:
        for paths, rights in ((read, _READ), (write, _WRITE)):
            for path in paths:
                _allow(handle, path, rights & handled)
        _call(_libc.syscall(_RESTRICT_SELF, handle, 0), "landlock_restrict_self")
    finally:
        os.close(handle)


def _allow(handle: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # What we cannot reach we need not be kept from.
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= _OF_FILES
        rule = _PathBeneath(rights, beneath)
        _call(_libc.syscall(_ADD_RULE, handle, _RULE_PATH_BENEATH, ctypes.byref(rule), 0), f"landlock_add_rule {path}")
    finally:
        os.close(beneath)


def _call(result: Any, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)


if __name__ == "__main__":
    main()
