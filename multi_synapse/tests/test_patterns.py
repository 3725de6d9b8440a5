"""Expressions and globs of tenants mean what they did, and take time linear in the text."""

from __future__ import annotations

import time

import pytest
from matrix_common.regex import glob_to_regex

from multi_synapse.options.patterns import PatternRefused, compile_pattern, glob_pattern
from multi_synapse.patches.patterns import _linear_glob, _matches_glob


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"@irc_.*:clinic\.example", "@irc_bob:clinic.example", "@bob:clinic.example"),
        (r"^[^@]+@clinic\.example$", "a@clinic.example", "a@other.example"),
        (r"(?i)ABC", "abc", "xbc"),
        (r"#telegram_-?\d+:.*", "#telegram_-5:x", "#telegram:x"),
    ],
)
def test_ordinary_expressions_match(pattern: str, yes: str, no: str) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.match(yes) and not compiled.match(no)
    assert compiled.pattern == pattern


@pytest.mark.parametrize("pattern", [r"(a)\1", r"(?=a)b", r"(?<=a)b", r"(?!a)", "(", "a{1000}{1000}", "x" * 2000, r"(?>a+)"])
def test_what_is_not_linear_is_refused(pattern: str) -> None:
    with pytest.raises(PatternRefused):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", [r"^((([a-z])+)*)+[A-Z]$", r"(a|aa)+$", r"(.*a){20}$", r"(a*)*b"])
def test_expressions_that_python_never_finishes_are_linear(pattern: str) -> None:
    begun = time.process_time()
    compile_pattern(pattern).match("a" * 20_000 + "!")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("glob", ["*", "a?c", "*.example", "@*:clinic.example", "a.b", "", "???*", "Ä*", r"a\b[x]"])
@pytest.mark.parametrize("text", ["abc", "a.b", "axb", "@a:clinic.example", "x.example", "äbc", "", r"a\b[x]", "a\nb"])
def test_globs_match_as_before(glob: str, text: str) -> None:
    expected, linear = glob_to_regex(glob), _linear_glob(glob_to_regex)(glob)
    assert bool(linear.match(text)) == bool(expected.match(text))


def test_a_glob_that_is_too_long_to_count_matches_nothing() -> None:
    assert not _linear_glob(glob_to_regex)("?" * 3000).match("a" * 3000)


@pytest.mark.parametrize(
    ("glob", "text", "expected"),
    [
        ("*.example", "a.example", True),
        ("*.example", "a.example.org", False),
        ("a[bc]d", "abd", True),
        ("a[!bc]d", "abd", False),
        ("a[!bc]d", "axd", True),
        ("[^a]", "^", True),
        ("a?", "a", False),
        ("a[", "a[", True),
        ("*a*a*a*a*a*a*a*a*a*a*a*b", "a" * 2000, False),
    ],
)
def test_shell_patterns_of_previews_match(glob: str, text: str, expected: bool) -> None:
    begun = time.process_time()
    assert _matches_glob(text, glob) is expected
    assert time.process_time() - begun < 1
    assert glob_pattern(glob).endswith(r"\z")
