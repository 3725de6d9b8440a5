"""The tables of `work.py`."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet import defer

from multi_synapse import work

#: Of workers, which a shard has none of, and of programs that are not the homeserver.
_ELSEWHERE = ("replication/", "_scripts/", "metrics/background_process_metrics.py")
#: Given by a variable: of modules, of replication, of scheduled tasks, and names that are found where they are given.
_VARIABLES = {"desc", "name", "self._name", "f'task-{task.action}'", "PURGE_HISTORY_ACTION_NAME"}
_BY_CLASS = "self.__class__.__name__"


def _names(root: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(root.rglob("*.py")):
        place = str(file.relative_to(root))
        if not place.startswith(_ELSEWHERE):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and (given := _name_given(node)) is not None:
                    yield ast.unparse(given) if not isinstance(given, ast.Constant) else str(given.value), f"{place}:{node.lineno}"


def _name_given(call: ast.Call) -> ast.expr | None:
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    by_keyword = {keyword.arg: keyword.value for keyword in call.keywords}
    if function in ("run_as_background_process", "wrap_as_background_process"):
        return call.args[0] if call.args else by_keyword.get("desc")
    if function in ("BatchingQueue", "BackgroundQueue"):
        return by_keyword.get("name")
    starts = [
        argument for argument in call.args[:2] if isinstance(argument, ast.Attribute) and argument.attr == "run_as_background_process"
    ]
    if starts and function in ("looping_call", "looping_call_now", "call_later"):
        after = call.args[2:]
        return after[0] if after else by_keyword.get("desc")
    return None


@pytest.mark.smoke
def test_each_background_process_of_synapse_is_known(python: Path) -> None:
    # A new release must not bring work that nobody thought of.
    found = subprocess.run([python, "-c", "import synapse; print(synapse.__file__)"], capture_output=True, text=True, check=True)
    names = dict(_names(Path(found.stdout.strip()).parent))
    assert len(names) > 80
    known = {*work.WAITED, *work.LEFT, *_VARIABLES, _BY_CLASS}
    assert json.dumps({name: place for name, place in names.items() if name not in known}, indent=1) == "{}"


def test_a_process_is_either_waited_for_or_left() -> None:
    assert not work.WAITED.keys() & work.LEFT.keys()


def test_a_stop_waits_for_each_process_for_its_own_time() -> None:
    names = ("persist_events", "httppush.process", "background_updates", "task-purge_history", "a-module's")
    hs = SimpleNamespace(_shard_processes={defer.Deferred(): name for name in names})
    assert work.waits_for(hs, 0.5) == {"persist_events", "httppush.process", "a-module's"}
    assert work.waits_for(hs, 2) == {"persist_events", "a-module's"}
    assert work.waits_for(hs, 60) == set()
