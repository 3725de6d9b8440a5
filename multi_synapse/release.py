"""The Synapse releases this runtime is for. Imports nothing of Synapse, so that any release can be asked.

A release within the tested ones, or a later fix of the newest, is taken. Another one is refused, as the runtime changes Synapse in
places that Synapse does not promise to keep (`patches/`), unless an operator allows it by name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from importlib import metadata

#: Oldest and newest release that the runtime's own tests are run with.
TESTED = ("1.157.2", "1.163.2")
#: Older ones lack what the patches change; not even by name.
OLDEST_SYNAPSE = (1, 147)

_RELEASE = re.compile(r"(\d+)\.(\d+)\.\d+")


class UnsupportedRelease(Exception):
    """The environment has no Synapse, or a release that this runtime does not know."""


def installed_release() -> str:
    """@raises UnsupportedRelease"""
    try:
        return metadata.version("matrix-synapse")
    except metadata.PackageNotFoundError:
        raise UnsupportedRelease("matrix-synapse is not installed in this environment") from None


def is_within(version: str, oldest: str, newest: str) -> bool:
    """Whether it is one of these releases, one between them, or another fix of the oldest or newest. Never a release candidate."""
    found = _RELEASE.fullmatch(version)
    return found is not None and _minor(oldest) <= _minor(version) <= _minor(newest)


def _minor(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    assert found is not None, version
    return int(found[1]), int(found[2])


def check_release(allowed: Collection[str] = ()) -> str | None:
    """A warning for a release that is allowed though it was never tested, or None. @raises UnsupportedRelease"""
    version = installed_release()
    if _minor(version) < OLDEST_SYNAPSE:
        oldest = ".".join(map(str, OLDEST_SYNAPSE))
        raise UnsupportedRelease(f"Synapse {version} cannot be hosted with others in one process; the oldest release that can is {oldest}")
    if is_within(version, *TESTED):
        return None
    tested = f"this runtime is tested with {TESTED[0]} to {TESTED[1]}"
    if version not in allowed:
        raise UnsupportedRelease(
            f"Synapse {version} is not supported: {tested}. Use one of these; to run it all the same, name it in allowUntestedReleases"
        )
    return (
        f"SYNAPSE {version} WAS NEVER TESTED with this runtime, which changes Synapse in places that may be others now: {tested}. "
        "It runs because allowUntestedReleases names it; expect tenants to fail, to leak, or to lose what moves should keep"
    )


def warn(sentence: str | None, program: str) -> None:
    """On stderr, past any logging."""
    if sentence is not None:
        print(f"{program}: WARNING: {sentence}", file=sys.stderr, flush=True)
