"""The shape of the table of options: who decides an option, and what its value may be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .kinds import ANY, LIST, MAPPING, Kind

#: The tenant decides.
TENANT = "tenant's"
#: The platform sets it.
PLATFORM = "platform's"
#: Nobody sets it in a shard.
REFUSED = "refused"

#: Why a tenant may name an address.
SCREENING = "what is sent where goes through the platform's refused networks"

#: In paths: each item of a list, and each value of a mapping whose keys are free.
ITEM, EACH = "[]", "*"


@dataclass
class Option:
    """A node of the table; its children are the options below it."""

    owner: str
    why: str
    kind: Kind
    #: By key; EACH and ITEM for the values of a mapping with free keys, and for the items of a list.
    keys: dict[str, Option] = field(default_factory=dict)
    #: Values that say "not", for an option that a tenant may not set; None, False and empty ones always do.
    off: tuple[object, ...] = ()
    #: Named by the table itself; else only the parent of such an option.
    named: bool = True


#: A kind, or a kind with a reason of its own.
Row = Kind | tuple[Kind, str]


@dataclass(frozen=True)
class Section:
    """Options with the reason that they have in common."""

    title: str
    owner: str
    why: str
    #: By path.
    rows: dict[str, Row]
    off: dict[str, tuple[object, ...]] = field(default_factory=dict)


_PART = re.compile(r"<([^>]*)>|(\[\])|([^.<\[]+)")


def tenants(title: str, why: str, rows: dict[str, Row]) -> Section:
    return Section(title, TENANT, why, rows)


def split(path: str) -> list[str]:
    """The keys of a path; one with dots in it is written `<a.b>`."""
    return [quoted or item or plain for quoted, item, plain in _PART.findall(path)]


def join(keys: tuple[str, ...]) -> str:
    text = ""
    for key in keys:
        text += key if key.startswith("[") else (f".{key}" if text else key)
    return text


def build(sections: tuple[Section, ...]) -> Option:
    """The tree of all sections' options. @raises ValueError for a path that is there twice"""
    root = Option(TENANT, "", MAPPING)
    for section in sections:
        for path, row in section.rows.items():
            kind, why = row if isinstance(row, tuple) else (row, section.why)
            _insert(root, path, Option(section.owner, why, kind, off=section.off.get(path, ())))
    return root


def _insert(root: Option, path: str, option: Option) -> None:
    node = root
    *parents, last = split(path)
    for index, key in enumerate(parents):
        following = parents[index + 1] if index + 1 < len(parents) else last
        kind = LIST if following == ITEM else MAPPING
        # That it is there says nothing about its content.
        node = node.keys.setdefault(key, Option(TENANT, option.why, kind, named=False))
    there = node.keys.get(last)
    if there is not None and there.named:
        raise ValueError(f"{path} is in the table twice")
    if there is not None:
        option.keys = there.keys
    node.keys[last] = option


def find(root: Option, path: tuple[str, ...]) -> Option | None:
    """The node that decides a path; one below what is free in its content is that one's."""
    node = root
    for key in path:
        if node.kind is ANY or (not node.keys and node is not root):
            return node
        below = node.keys.get(key) or node.keys.get(EACH)
        if below is None:
            return None
        node = below
    return node


def walk(root: Option, path: str = "") -> Iterator[tuple[str, Option]]:
    for key, option in root.keys.items():
        name = f"<{key}>" if "." in key else key
        here = f"{path}{ITEM}" if key == ITEM else f"{path}.{name}" if path else name
        yield here, option
        yield from walk(option, here)
