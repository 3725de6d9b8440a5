"""Regular expressions of tenants: those that RE2 can match in time linear in the text, and no others."""

from __future__ import annotations

import re
from typing import Any

import re2

_LONGEST = 1024
#: Of the compiled program, for each character of the expression: a counted repetition of a counted repetition grows beyond it.
_BYTES_OF_CHARACTER = 256
_LEAST_BYTES = 256 * 1024
#: Matches no text.
NOTHING = r"[^\x00-\x{10FFFF}]"


class PatternRefused(ValueError):
    """Why an expression cannot be used."""


def compile_pattern(pattern: str, ignore_case: bool = False, longest: int = _LONGEST) -> Any:
    """@raises PatternRefused"""
    if len(pattern) > longest:
        raise PatternRefused(f"is longer than {longest} characters")
    options = re2.Options()
    options.max_mem = max(_LEAST_BYTES, _BYTES_OF_CHARACTER * len(pattern))
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern, options)
    except re2.error:
        raise PatternRefused(
            "is not a regular expression of RE2, which has no look-ahead, look-behind and back-references; write it without them"
        ) from None


def check_pattern(pattern: str) -> None:
    """@raises PatternRefused"""
    compile_pattern(pattern)


def glob_pattern(glob: str) -> str:
    """The expression of a shell's pattern with `*`, `?` and `[…]`."""
    parts = []
    for part in re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[", glob):
        if part.startswith("*"):
            parts.append("(?s:.*)")
        elif part == "?":
            parts.append("(?s:.)")
        elif len(part) > 2 and part.startswith("[") and part.endswith("]"):
            inside = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]".replace("[^", r"[\^"))
        else:
            parts.append(re.escape(part))
    return "".join(parts) + r"\z"
