"""What a value of an option must look like, and how far it may go.

A kind says three things of a value: nothing (fine), that it is not what Synapse expects (a warning), or that it goes beyond what a tenant
may ask of a process that it shares (refused).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .patterns import PatternRefused, check_pattern

#: Of one string; longer texts belong under `synapse_shards`.
LONGEST_TEXT = 16 * 1024
_SIZES = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_URL = re.compile(r"https?://[^\s/?#]+", re.IGNORECASE)
#: For `synapse.config`'s own parser of numbers with a unit.
_WHOLE = re.compile(r"\s*[-+]?[0-9](?:_?[0-9])*\s*")
_LONGEST_NUMBER = 40


@dataclass(frozen=True)
class Problem:
    text: str
    #: Otherwise a warning.
    refused: bool = False
    #: It is no value of its kind, and may be read differently by others: an InvalidConfig.
    unreadable: bool = False


@dataclass(frozen=True)
class Kind:
    """`judge` looks at a value and at the highest that is allowed; None there: as the table says."""

    #: For readers: "a whole number", "a duration such as 7d".
    what: str
    judge: Callable[[Any], Problem | None]
    #: The value as a number, for kinds that have bounds; raises ValueError for what is none.
    number: Callable[[Any], float] | None = None
    least: float | None = None
    most: float | None = None
    #: Writes a bound as a user would.
    show: Callable[[float], str] = lambda value: f"{value:g}"

    def check(self, value: Any, ceiling: Any = None) -> Problem | None:
        """@param ceiling: what the operator set for all, which a tenant may have too"""
        if self.number is not None:
            try:
                number = self.number(value)
            except (ValueError, TypeError, OverflowError):
                if self.most is None and self.least is None:
                    return Problem(f"is {kind_of(value)}, expected {self.what}")
                return Problem(f"is {kind_of(value)}, expected {self.what}", unreadable=True)
            problem = self._beyond(number, ceiling)
            if problem is not None:
                return problem
        return self.judge(value)

    def _beyond(self, number: float, ceiling: Any) -> Problem | None:
        assert self.number is not None
        most, least = self.most, self.least
        try:
            of_operator = None if ceiling is None else self.number(ceiling)
        except (ValueError, TypeError, OverflowError):
            of_operator = None
        if of_operator is not None:
            most = None if most is None else max(most, of_operator)
            least = None if least is None else min(least, of_operator)
        if math.isnan(number) or (most is not None and number > most):
            return Problem(f"is above {self.show(most or 0)}, the highest value that a tenant may have", refused=True)
        if least is not None and number < least:
            return Problem(f"is below {self.show(least)}, the lowest value that a tenant may have", refused=True)
        return None

    @property
    def bounds(self) -> str:
        """For the documentation."""
        parts = []
        if self.least is not None:
            parts.append(f"from {self.show(self.least)}")
        if self.most is not None:
            parts.append(f"up to {self.show(self.most)}")
        return " ".join(parts)


def kind_of(value: Any) -> str:
    """A value's type in words; never the value, which may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "a date"


def _expect(what: str, accepts: Callable[[Any], bool]) -> Callable[[Any], Problem | None]:
    return lambda value: None if accepts(value) else Problem(f"is {kind_of(value)}, expected {what}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number_of(value: Any) -> float:
    """Leniently: text too, so that no bound is passed by with quotes."""
    if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
        raise ValueError("too long")
    if not isinstance(value, int | float | str):
        raise TypeError("not a number")
    return float(value)


def _quantity(value: Any, units: dict[str, int], scale: float) -> float:
    if _is_number(value):
        return float(value)
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NUMBER:
        raise ValueError("not a quantity")
    unit, text = (units[value[-1]], value[:-1]) if value[-1] in units else (0, value)
    if not _WHOLE.fullmatch(text):
        raise ValueError("not a quantity")
    return float(int(text)) * (unit * scale if unit else 1)


def bytes_of(value: Any) -> float:
    return _quantity(value, _SIZES, 1)


def milliseconds_of(value: Any) -> float:
    return _quantity(value, _SECONDS, 1000)


def _show_bytes(value: float) -> str:
    for unit in ("T", "G", "M", "K"):
        if value >= _SIZES[unit] and value % _SIZES[unit] == 0:
            return f"{value / _SIZES[unit]:g}{unit}"
    return f"{value:g}"


def _show_milliseconds(value: float) -> str:
    for unit in ("y", "w", "d", "h", "m", "s"):
        if value >= _SECONDS[unit] * 1000 and value % (_SECONDS[unit] * 1000) == 0:
            return f"{value / _SECONDS[unit] / 1000:g}{unit}"
    return f"{value:g} ms"


def _judge_size(value: Any) -> Problem | None:
    try:
        return Problem("is negative, expected a size such as 50M") if bytes_of(value) < 0 else None
    except ValueError:
        return Problem(f"is {kind_of(value)}, expected a size such as 50M")


def _judge_span(value: Any) -> Problem | None:
    try:
        return Problem("is negative, expected a duration such as 7d") if milliseconds_of(value) < 0 else None
    except ValueError:
        return Problem(f"is {kind_of(value)}, expected a duration such as 7d")


def _judge_pattern(value: Any) -> Problem | None:
    if not isinstance(value, str):
        return Problem(f"is {kind_of(value)}, expected a regular expression")
    try:
        check_pattern(value)
    except PatternRefused as error:
        return Problem(str(error), refused=True)
    return None


def _judge_preview_pattern(value: Any) -> Problem | None:
    # Synapse takes what begins with ^ for an expression, anything else for a glob.
    return _judge_pattern(value) if isinstance(value, str) and value.startswith("^") else _judge_glob(value)


def _judge_glob(value: Any) -> Problem | None:
    if not isinstance(value, str):
        return Problem(f"is {kind_of(value)}, expected a pattern with * and ?")
    return Problem("is longer than 1024 characters", refused=True) if len(value) > 1024 else None


def _judge_url(value: Any) -> Problem | None:
    if isinstance(value, str) and _URL.match(value) and len(value) <= 2048:
        return None
    # Not a warning: what is no address is a path to some readers.
    return Problem("is not a URL that begins with https:// or http://", unreadable=True)


def _judge_file_name(value: Any) -> Problem | None:
    if isinstance(value, str) and _FILE_NAME.fullmatch(value):
        return None
    return Problem("is not the plain name of a template, which is given under synapse_shards.templates", refused=True)


def _judge_text(value: Any) -> Problem | None:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return Problem(f"is longer than {LONGEST_TEXT} characters", refused=True)
    # A number where a name is expected is what YAML makes of it; Synapse turns it into text.
    return None if isinstance(value, str | int | float) and not isinstance(value, bool) else Problem(f"is {kind_of(value)}, expected text")


def _judge_host(value: Any) -> Problem | None:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,255}", value):
        return None
    return Problem("is not the name or address of one host", refused=True)


FLAG = Kind("true or false", _expect("true or false", lambda value: isinstance(value, bool)))
TEXT = Kind("text", _judge_text)
TEXTS = Kind(
    "a list of texts", _expect("a list of texts", lambda value: isinstance(value, list) and all(isinstance(i, str) for i in value))
)
URL = Kind("a URL", _judge_url)
HOST = Kind("a host", _judge_host)
PATTERN = Kind("a regular expression", _judge_pattern)
PREVIEW_PATTERN = Kind("a pattern with * and ?, or a regular expression that begins with ^", _judge_preview_pattern)
GLOB = Kind("a pattern with * and ?", _judge_glob)
FILE_NAME = Kind("the name of a template", _judge_file_name)
MODULE = Kind("a Python module", _expect("a Python module", lambda value: isinstance(value, str)))
MAPPING = Kind("a mapping", _expect("a mapping", lambda value: isinstance(value, dict)))
LIST = Kind("a list", _expect("a list", lambda value: isinstance(value, list)))
ANY = Kind("anything", lambda _value: None)
_NUMBER = Kind("a number", _expect("a number", _is_number), _number_of)
_WHOLE_NUMBER = Kind("a whole number", _expect("a whole number", _is_whole), _number_of)
_SIZE = Kind("a size such as 50M", _judge_size, bytes_of, show=_show_bytes)
_SPAN = Kind("a duration such as 7d", _judge_span, milliseconds_of, show=_show_milliseconds)


def number(most: float | None = None, least: float | None = None) -> Kind:
    return replace(_NUMBER, most=most, least=least)


def whole(most: float | None = None, least: float | None = None) -> Kind:
    return replace(_WHOLE_NUMBER, most=most, least=least)


def size(most: str | None = None) -> Kind:
    return replace(_SIZE, most=None if most is None else bytes_of(most))


def span(most: str = "1000y", least: str | None = None) -> Kind:
    # Times are computed with: what is beyond the calendar is an error far from here.
    return replace(_SPAN, most=milliseconds_of(most), least=None if least is None else milliseconds_of(least))


def one_of(*allowed: Any) -> Kind:
    what = "one of " + ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in allowed)
    # By type too: 1 equals True.
    return Kind(what, _expect(what, lambda value: any(value == item and type(value) is type(item) for item in allowed)))
