"""What a shard's process does before it knows which shard it is: imports, the changes to Synapse, and first-time work.

It starts no thread and opens nothing that a forked process must not share, so `fork_server.py` does it once for several shards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from . import docstrings

_loaded = False


def load(allow_untested_releases: Collection[str] = (), scratch: Path | None = None) -> None:
    """
    Idempotent, but for a process that is forked later: what it did is there.

    @param scratch for files that are gone afterwards
    @raises UnsupportedRelease, ChangedUpstream
    """
    global _loaded
    if _loaded:
        return
    docstrings.leave_out()
    from . import __main__, control, patches, preparers, probe, runtime, warmup  # noqa: F401

    patches.allow(allow_untested_releases)
    patches.apply_all()
    warmup.warm_up(scratch or Path(tempfile.gettempdir()))
    _loaded = True
