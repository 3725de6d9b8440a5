"""`python -m multi_synapse.prepare`: the preparer (preparer.py), after a look at whether this Synapse can be hosted at all."""

from __future__ import annotations

import json
import sys

from .release import UnsupportedRelease, check_release


def main() -> int:
    try:
        check_release()
    except UnsupportedRelease as error:
        print(json.dumps({"event": "error", "code": "UnsupportedRelease", "message": str(error)}), flush=True)
        return 2
    from . import preparer

    return preparer.main()


if __name__ == "__main__":
    sys.exit(main())
