"""`python -m multi_synapse.prepare`: the preparer (preparer.py), after a look at whether this Synapse can be hosted at all."""

from __future__ import annotations

import argparse
import json
import sys

from .release import UnsupportedRelease, check_release, warn


def main() -> int:
    parser = argparse.ArgumentParser(prog="multi_synapse.prepare", description="Slow database work for shards, by lines of JSON.")
    parser.add_argument("--allow-untested-release", action="append", default=[], metavar="VERSION")
    allowed = parser.parse_args().allow_untested_release
    try:
        warn(check_release(allowed), "multi_synapse.prepare")
    except UnsupportedRelease as error:
        print(json.dumps({"event": "error", "code": "UnsupportedRelease", "message": str(error)}), flush=True)
        return 2
    from . import preparer

    return preparer.main(allowed)


if __name__ == "__main__":
    sys.exit(main())
