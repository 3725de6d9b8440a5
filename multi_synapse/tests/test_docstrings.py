from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from multi_synapse.docstrings import without

from .shard import CHECKOUT

SOURCE = '''
"""Of the module."""


class Error(Exception):
    """Says why."""

    def __str__(self):
        """Twisted's errors do this."""
        return self.__doc__


def documented(value):
    """Not needed."""
    assert value, "assertions stay"

    def inner():
        """Neither."""
        return "inner"

    return inner() + str(value)


def says_the_same():
    """Is returned."""
    return "Is returned."


def undocumented(first="a"):
    return "first constant" + first


async def waits():
    """Not needed."""
    return [text for text in ("x", "y")]


anonymous = lambda: "a lambda's first constant"
generator = list(("constant", item) for item in "ab")
'''


def run(code: object) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "sample"}
    exec(code, namespace)  # type: ignore[arg-type]
    return namespace


def test_only_docstrings_of_functions_are_left_out() -> None:
    # Guards against: a constant that a function returns is taken for its docstring; assertions are lost with them.
    compiled = compile(SOURCE, "sample.py", "exec")
    before, after = run(compiled), run(without(compiled))
    for name in ("documented", "waits"):
        assert before[name].__doc__ == "Not needed."
        assert after[name].__doc__ is None
    for namespace in (before, after):
        assert namespace["__doc__"] == "Of the module."
        assert str(namespace["Error"]()) == "Says why."  # type: ignore[operator]
        assert namespace["documented"](1) == "inner1"  # type: ignore[operator]
        assert namespace["says_the_same"]() == "Is returned."  # type: ignore[operator]
        assert namespace["undocumented"]() == "first constanta"  # type: ignore[operator]
        assert namespace["anonymous"]() == "a lambda's first constant"  # type: ignore[operator]
        assert namespace["generator"] == [("constant", "a"), ("constant", "b")]
        try:
            namespace["documented"](0)  # type: ignore[operator]
        except AssertionError as error:
            assert str(error) == "assertions stay"
        else:
            raise AssertionError("the assertion was lost")
    assert "Neither." not in repr([constant.co_consts for constant in without(compiled).co_consts if hasattr(constant, "co_consts")])


def test_other_packages_keep_theirs(tmp_path: Path) -> None:
    # Guards against: a module of a tenant's, which may read its own docstrings, loses them.
    (tmp_path / "tenants_module.py").write_text(SOURCE)
    program = (
        "from multi_synapse import docstrings; docstrings.leave_out();"
        "import tenants_module, synapse.util.stringutils as ours;"
        "print(tenants_module.documented.__doc__, ours.random_string.__doc__)"
    )
    environment = {"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "Not needed. None"
