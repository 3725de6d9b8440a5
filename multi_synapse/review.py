"""`python -m multi_synapse.review`: judges the homeserver.yaml of a Synapse that is to become a tenant, option by option.

One assignment as a line of JSON in, one line out. Nothing is dropped without a word: what a tenant may not set is named with the reason,
and what is left is the tenant's part, which Synapse itself has read.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import sys
from typing import Any

import yaml

from . import checker, errors
from . import config as tenant_config
from .errors import OptionError
from .options.check import Checked, check_options
from .options.reading import parse_mapping
from .release import installed_release
from .state import Assignment

#: More than there are options.
_MOST_REFUSED = 500


def review(assignment: Assignment) -> dict[str, Any]:
    """@raises TenantError for what is no homeserver.yaml at all"""
    given = parse_mapping(assignment.overrides, "homeserver.yaml")
    secrets = tenant_config.secret_values(given)
    refused: list[dict[str, Any]] = []
    checked = _without_refused(assignment, given, refused)
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True) if given else ""
    problem = None
    try:
        checker.check(dataclasses.replace(assignment, overrides=text))
    except errors.TenantError as error:
        problem = errors.describe(error, secrets).message
    unknown = {sentence.split(" ")[2] for sentence in checked.warnings if " is unknown " in sentence}
    return {
        "config": text,
        "taken": [key for key in given if key not in unknown],
        "refused": refused,
        "warnings": checked.warnings,
        "problem": problem,
    }


def _without_refused(assignment: Assignment, given: dict[str, Any], refused: list[dict[str, Any]]) -> Checked:
    """Takes out of `given` what is refused, one option after the other."""
    while True:
        try:
            return check_options(copy.deepcopy(given), assignment.server_name, assignment.base, assignment.policy)
        except OptionError as error:
            if len(refused) >= _MOST_REFUSED:
                raise
            option = _take_out(given, error.option)
            refused.append({"option": option, "why": error.why, "owner": error.owner})


def _take_out(given: dict[str, Any], path: str) -> str:
    """@returns what was taken out: the option of that path, or what it is in where that cannot be found"""
    node: Any = given
    rest = path
    while isinstance(node, dict):
        # Keys may have dots in them.
        found = max((key for key in node if rest == str(key) or rest.startswith((f"{key}.", f"{key}["))), key=len, default=None)
        if found is None:
            break
        if rest == found or rest[len(found)] == "[" or not isinstance(node[found], dict):
            # Of a list the whole: an item without the refused part would mean something else.
            del node[found]
            return path[: len(path) - len(rest) + len(found)]
        node, rest = node[found], rest[len(found) + 1 :]
    top = path.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]
    given.pop(top)
    return top


def main() -> int:
    from . import log, patches

    os.umask(0o077)
    # Only the answer may go to stdout, whatever Synapse prints.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    log.set_up_logging("ERROR", None)
    patches.allow([installed_release()])
    patches.apply_all()
    try:
        answer = review(Assignment.parse(json.loads(sys.stdin.readline())))
    except errors.TenantError as error:
        answer = {"error": {"code": error.code, "message": error.message}}
    except Exception as error:
        answer = {"error": {"code": errors.INVALID_CONFIG, "message": f"homeserver.yaml cannot be judged: {type(error).__name__}"}}
    out.write(json.dumps(answer) + "\n")
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
