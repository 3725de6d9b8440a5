"""The Synapse releases this runtime is for. Imports nothing of Synapse, so that any release can be asked."""

from __future__ import annotations

import re
from importlib import metadata

#: The patches of Synapse were written and tested for this release and later ones.
OLDEST_SYNAPSE = (1, 147)


class UnsupportedRelease(Exception):
    """The environment has no Synapse, or one that this runtime does not know."""


def check_release() -> None:
    """@raises UnsupportedRelease"""
    try:
        version = metadata.version("matrix-synapse")
    except metadata.PackageNotFoundError:
        raise UnsupportedRelease("matrix-synapse is not installed in this environment") from None
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_SYNAPSE:
        oldest = ".".join(map(str, OLDEST_SYNAPSE))
        raise UnsupportedRelease(f"Synapse {version} cannot be hosted with others in one process; the oldest release that can is {oldest}")
