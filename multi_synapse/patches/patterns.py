"""Patterns that tenants and their users write, matched in time linear in the text; Python's engine can take forever for one."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable
from typing import Any

from synapse import appservice
from synapse.config import room_directory, tls
from synapse.media import url_previewer
from synapse.storage import invite_rule
from synapse.storage.databases.main import appservice as stored_appservices
from synapse.util import threepids

from ..options.patterns import NOTHING, PatternRefused, compile_pattern, glob_pattern
from .process import replace

#: The patterns of all application services of a tenant in one.
_MOST_TOGETHER = 256 * 1024


def use_linear_patterns() -> None:
    linear = types.SimpleNamespace(match=_match, compile=compile_pattern)
    replace(threepids, "re", linear)
    replace(appservice, "re", linear)
    replace(stored_appservices, "re", types.SimpleNamespace(compile=functools.partial(compile_pattern, longest=_MOST_TOGETHER)))
    replace(url_previewer, "re", linear)
    replace(url_previewer, "fnmatch", types.SimpleNamespace(fnmatch=_matches_glob))
    for module in (tls, room_directory, invite_rule):
        replace(module, "glob_to_regex", _linear_glob(module.glob_to_regex))


def _match(pattern: str, text: str) -> Any:
    return _compiled(pattern).match(text)


# Of all tenants, so that none of them can push out the others' for long.
@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return compile_pattern(pattern)


def _matches_glob(text: str, pattern: str) -> bool:
    return _compiled(glob_pattern(pattern)).match(text) is not None


def _linear_glob(original: Callable[..., re.Pattern[str]]) -> Callable[..., Any]:
    def glob_to_regex(glob: str, *, word_boundary: bool = False, ignore_case: bool = True) -> Any:
        # RE2's name for the end of the text.
        pattern = original(glob, word_boundary=word_boundary, ignore_case=ignore_case).pattern.replace(r"\Z", r"\z")
        try:
            return compile_pattern(pattern, ignore_case=ignore_case)
        except PatternRefused:
            # More question marks in a row than RE2 counts: no name is as long.
            return compile_pattern(NOTHING)

    return glob_to_regex
