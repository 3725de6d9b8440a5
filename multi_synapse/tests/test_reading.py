from __future__ import annotations

import time

import pytest
import yaml

from multi_synapse.errors import TenantError
from multi_synapse.options.reading import DEEPEST, LARGEST_TEXT, MOST_NODES, parse_mapping


def refusal(text: str) -> str:
    with pytest.raises(TenantError) as caught:
        parse_mapping(text)
    assert caught.value.code == "InvalidConfig"
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3"),
        ("a: 1\n  b: 2", "line 2"),
        ("- a\n- b", "is a list (line 1), expected a mapping"),
        ("just text", "is a string"),
        ("5: x", "the key 5"),
        ("a: !!python/object:os.system x", "line 1"),
        ("a: !!binary aGk=", "the type binary has no place here, at line 1"[:20]),
        ("a: !!set {b}", "the type set"),
        ("a: *nowhere", "line 1"),
        ("a: &a {k: 1}\nb: &b {k: 2}\nc: {<<: [*a, *b]}", "merge keys bring in one key twice"),
        ("a: &x [*x]", "has an alias inside of what it stands for"),
        ("--- \na: 1\n---\nb: 2", "line 3"),
    ],
)
def test_broken_yaml_is_refused_with_the_line(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_a_mistake_is_told_without_the_lines_around_it() -> None:
    for text in ("macaroon_secret_key: [hunter2-hunter2\nb: 1: 2", "a: !hunter2-hunter2 x", "a: 'hunter2-hunter2"):
        assert "hunter2" not in refusal(text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_configuration_is_one(text: str) -> None:
    assert parse_mapping(text) == {}


def test_values_are_those_of_synapses_own_reader() -> None:
    text = "a: 5_432\nb: yes\nc: 010\nd: 1:30\ne: {<<: {x: 1}, y: 2}\nf: 2024-01-01\ng: 1e3\nh: ~\ni: '5'\nj: [&k {l: 1}, *k]\n"
    assert parse_mapping(text) == yaml.safe_load(text)


def test_two_parts_are_never_one_object() -> None:
    read = parse_mapping("a: &a [1]\nb: *a")
    assert read["a"] == read["b"] and read["a"] is not read["b"]


def bomb(levels: int, wide: int) -> str:
    lines = [f"k0: &k0 [{', '.join(['v'] * wide)}]"]
    lines += [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * wide)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merge_bomb(levels: int, wide: int) -> str:
    lines = ["k0: &k0 {a: 1, b: 2}"]
    lines += [f"k{i}: &k{i} {{<<: [{', '.join([f'*k{i - 1}'] * wide)}]}}" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb(9, 9), "more than"),
        (bomb(3, 200), "more than"),
        (merge_bomb(12, 9), "more than"),
        ("a: " + "[" * (DEEPEST + 2), "nested deeper"),
        ("[" * 200_000, "nest"),
        ("{a: " * 60_000, "nested deeper"),
        ("a: [" + "1," * (MOST_NODES + 1) + "]", "more than"),
        ("a: " + "x" * LARGEST_TEXT, "longer than"),
        ("a: 0x" + "f" * 100_000, "a number is too long"),
        ("a: 1" + ":1" * 100_000, "a number is too long"),
        ("a: " + "9" * 200_000, "a number is too long"),
    ],
    ids=["aliases", "wide-aliases", "merge-keys", "deep", "brackets", "braces", "many", "long", "hexadecimal", "sexagesimal", "decimal"],
)
def test_what_would_take_long_is_refused_at_once(text: str, expected: str) -> None:
    begun = time.process_time()
    assert expected in refusal(text)
    # Processor time, of which a text at every bound takes a fraction.
    assert time.process_time() - begun < 2


def test_reading_takes_time_linear_in_the_size() -> None:
    def seconds(entries: int) -> float:
        text = "".join(f"key{i}: [a, {{b: {i}}}]\n" for i in range(entries))
        best = min(_timed(text) for _ in range(3))
        return best / entries

    assert seconds(8000) < 4 * seconds(1000)


def _timed(text: str) -> float:
    begun = time.process_time()
    parse_mapping(text)
    return time.process_time() - begun
