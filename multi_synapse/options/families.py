"""Families of metrics by name: `all`, a name, or the beginning of names and `*`."""

from __future__ import annotations

import re
from collections.abc import Iterable

ALL = "all"
_PATTERN = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,126}\*?")
#: What Prometheus calls the samples of a family; people know these names.
_SUFFIXES = ("", "_total", "_bucket", "_sum", "_count", "_info", "_created")


class Families:
    """A set of families, which also knows those that do not exist yet."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._all = False
        self._names: set[str] = set()
        beginnings: list[str] = []
        for pattern in patterns:
            if pattern == ALL:
                self._all = True
            elif pattern.endswith("*"):
                beginnings.append(pattern[:-1])
            else:
                self._names.add(pattern)
        self._beginnings = tuple(beginnings)
        #: Asked for each thing that is counted, of the few hundred families that there are.
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return self._all or bool(self._names) or bool(self._beginnings)

    def __contains__(self, family: str) -> bool:
        """@param family as prometheus_client names it: a counter without `_total`"""
        known = self._known.get(family)
        if known is None:
            known = self._all or family.startswith(self._beginnings) or any(family + suffix in self._names for suffix in _SUFFIXES)
            self._known[family] = known
        return known


def parse_pattern(text: str) -> str:
    """@raises ValueError"""
    if not _PATTERN.fullmatch(text):
        raise ValueError("which is neither all, nor a family such as synapse_pushers, nor the beginning of some such as synapse_util_*")
    return text
