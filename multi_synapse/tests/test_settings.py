from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multi_synapse.settings import SettingsError, parse_settings

from .shard import CHECKOUT
from .watching import PATIENCE_SECONDS

VALID: dict[str, Any] = {"name": "1.0-0", "stateDir": "/s", "control": {"host": "127.0.0.1", "port": 0}, "tokenFile": "/t"}


def test_what_is_left_out_has_its_documented_default() -> None:
    settings = parse_settings(VALID, "shard.json")
    assert (settings.advertise_host, settings.listen_host, settings.database_idle_seconds) == ("127.0.0.1", "127.0.0.1", 10)
    assert parse_settings({**VALID, "advertiseHost": "shard-0.shards"}, "").listen_host == "0.0.0.0"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"naem": "x"}, "unknown key 'naem'"),
        ({"name": 5}, "name is a number, expected a string"),
        ({"name": ""}, "name is empty"),
        ({"control": {"host": "h", "port": "80"}}, "port is a string, expected a number"),
        ({"control": {"host": "h", "port": True}}, "port is a boolean"),
        ({"control": {"host": "h", "port": 70000}}, "control.port is 70000"),
        ({"control": {"hots": "h"}}, "unknown key 'hots'"),
        ({"control": []}, "control is a list"),
        ({"logLevel": "LOUD"}, "logLevel is 'LOUD'"),
        ({"databaseIdleSeconds": 0}, "databaseIdleSeconds is 0"),
        ({"mediaCacheBytes": -1}, "mediaCacheBytes is -1"),
        ({"mediaCacheBytes": 1.5}, "mediaCacheBytes is a number, expected a number"),
        ({"mediaCacheSeconds": 60}, "mediaCacheSeconds is 60.0, allowed is 600 or more"),
        ({"stateDir": None}, "stateDir is missing"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=r"shard\.json") as caught:
        parse_settings({**VALID, **change}, "shard.json")
    assert expected in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}'])
def test_a_wrong_configuration_ends_with_2_and_a_reason(folder: Path, content: str) -> None:
    config = folder / "shard.json"
    config.write_text(content)
    result = subprocess.run(
        [sys.executable, "-m", "multi_synapse", "--config", config],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert result.returncode == 2
    assert str(config) in result.stderr
    assert "Traceback" not in result.stderr
