"""The one reader of YAML from outside: in time linear in its size, and never more of it than a bound.

PyYAML builds what aliases stand for once, and shares it; whatever walks through it afterwards meets it as often as it is named, which 500
bytes make hours of. So the events of the parser are counted before anything is built: an alias counts as what it stands for.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..errors import INVALID_CONFIG, TenantError

LARGEST_TEXT = 256 * 1024
MOST_NODES = 50_000
DEEPEST = 32
_BASE = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
#: Python's conversions take time by the square of the length.
_LONGEST_NUMBER = 64


class _Loader(_BASE):  # type: ignore[misc,valid-type]
    """SafeLoader, as Synapse's own, but for numbers of any length and types that homeserver.yaml has no use for."""


def _merge_without_doubles(loader: Any, node: Any) -> None:
    """Versions of PyYAML disagree on which of several merged mappings wins."""
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge" and isinstance(value, yaml.SequenceNode):
            seen: set[str] = set()
            for merged in value.value:
                names = {str(name.value) for name, _ in merged.value} if isinstance(merged, yaml.MappingNode) else set()
                if seen & names:
                    raise yaml.constructor.ConstructorError(None, None, "merge keys bring in one key twice", key.start_mark)
                seen |= names
    _BASE.flatten_mapping(loader, node)


def _short(construct: Any) -> Any:
    def checked(loader: Any, node: Any) -> Any:
        if isinstance(node.value, str) and len(node.value) > _LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(None, None, "a number is too long", node.start_mark)
        return construct(loader, node)

    return checked


def _no_such_type(_loader: Any, node: Any) -> Any:
    raise yaml.constructor.ConstructorError(None, None, f"the type {node.tag.rsplit(':', 1)[-1]} has no place here", node.start_mark)


for _tag, _construct in (
    ("tag:yaml.org,2002:int", yaml.constructor.SafeConstructor.construct_yaml_int),
    ("tag:yaml.org,2002:float", yaml.constructor.SafeConstructor.construct_yaml_float),
):
    _Loader.add_constructor(_tag, _short(_construct))
_Loader.flatten_mapping = _merge_without_doubles
for _tag in ("set", "omap", "pairs", "binary"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _no_such_type)


class _TooMuch(Exception):
    def __init__(self, what: str, mark: Any) -> None:
        super().__init__(what)
        self.what, self.mark = what, mark


def parse_mapping(text: str, what: str = "the configuration") -> dict[str, Any]:
    """YAML as a mapping of texts to values. Two parts of it are never one object. @raises TenantError InvalidConfig with the line"""
    if len(text) > LARGEST_TEXT:
        raise TenantError(INVALID_CONFIG, f"{what} is longer than {LARGEST_TEXT} characters")
    try:
        _measure(text)
        value = yaml.load(text, Loader=_Loader)  # noqa: S506
    except _TooMuch as error:
        raise TenantError(INVALID_CONFIG, f"{what} {error.what}, at {_place(error.mark)}") from None
    except yaml.MarkedYAMLError as error:
        # Not str(error): that quotes the lines around it, and a secret may be in them.
        where = _place(error.problem_mark or error.context_mark)
        raise TenantError(INVALID_CONFIG, f"{what} is not YAML, at {where}: {_without_values(error.problem or error.context)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TenantError(INVALID_CONFIG, f"{what} is not YAML: {type(error).__name__}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a string" if isinstance(value, str) else "a single value"
        raise TenantError(INVALID_CONFIG, f"{what} is {kind} (line 1), expected a mapping of options to values")
    for key in value:
        if not isinstance(key, str):
            raise TenantError(INVALID_CONFIG, f"{what} has the key {key!r}, which is not a string")
    copied: dict[str, Any] = _copy(value)
    return copied


def _measure(text: str) -> None:
    """Counts nodes as if each alias were written out. @raises _TooMuch, yaml.MarkedYAMLError"""
    sizes: dict[str | None, int] = {}
    #: Of each collection that is open: its anchor, and the nodes in it so far.
    stack: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_BASE):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor)
            if size is None:
                if any(anchor == event.anchor for anchor, _ in stack):
                    raise _TooMuch("has an alias inside of what it stands for", event.start_mark)
                # Composing it says so, with its place.
                size = 1
            total += size
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(stack) >= DEEPEST:
                raise _TooMuch(f"is nested deeper than {DEEPEST} levels", event.start_mark)
            sizes.pop(event.anchor, None)
            stack.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = stack.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        if total > MOST_NODES:
            raise _TooMuch(f"has more than {MOST_NODES} values, with what its aliases stand for", event.start_mark)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _without_values(text: str | None) -> str:
    """The parser quotes characters and anchors only; a tag is the one thing in its messages that a user wrote."""
    return re.sub(r"for the tag .*", "for a tag that is not YAML's own", text or "")


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown line"
