"""What patches rely on: functions of Synapse and of the libraries it uses, with the names of their parameters.

A function that was changed upstream is found when the process starts, and not when a tenant comes to it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

_VARIABLE: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


class ChangedUpstream(AttributeError):
    """Something that a patch relies on is not there, or takes other parameters."""


def check(patch: str, relied_on: Mapping[str, str]) -> None:
    """`relied_on`: parameters by `module:qualified.name`. @raises ChangedUpstream"""
    for name, expected in relied_on.items():
        found = parameters_of(name)
        if found is None:
            raise ChangedUpstream(f"the patch {patch} relies on {name}, which this release does not have")
        if found != expected:
            raise ChangedUpstream(f"the patch {patch} relies on {name}({expected}), which is {name}({found}) in this release")


def parameters_of(name: str) -> str | None:
    """`self, first, *others, **named`, or None if there is no such function."""
    module, _, path = name.partition(":")
    try:
        owner: Any = importlib.import_module(module)
        for part in path.split("."):
            owner = getattr(owner, part)
    except (ImportError, AttributeError):
        return None
    parameters = inspect.signature(owner).parameters.values()
    return ", ".join(f"{_VARIABLE.get(parameter.kind, '')}{parameter.name}" for parameter in parameters)
