"""What becomes of the homeserver.yaml of an existing Synapse: every option is taken, or named with the reason."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import yaml

from .conftest import pythons, signing_key
from .shard import CHECKOUT


def review(text: str, **policy: Any) -> dict[str, Any]:
    base = {
        "server_name": "clinic.example",
        "database": {"name": "psycopg2", "args": {"host": "127.0.0.1", "dbname": "x", "user": "x", "password": "x"}},
        "media_store_path": "/nonexistent/media",
        "macaroon_secret_key": "secret-of-the-platform",
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "report_stats": False,
    }
    assignment = {"serverName": "clinic.example", "epoch": 1, "base": base, "overrides": text, "signingKey": signing_key()}
    process = subprocess.run(
        [pythons()[0], "-m", "multi_synapse.review"],
        input=json.dumps({**assignment, "policy": policy}) + "\n",
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def test_every_option_is_taken_or_named_with_the_reason() -> None:
    # Guards against: an import that drops an option without a word, or keeps one that reaches other tenants.
    given = """
server_name: clinic.example
pid_file: /var/run/synapse.pid
listeners: [{port: 8008, type: http}]
redis: {enabled: true, host: redis}
caches: {global_factor: 1.0, expire_caches: true}
saml2_config: {sp_config: {}}
oidc_providers: [{idp_id: a, idp_name: A, client_secret_path: /etc/secret}]
public_baseurl: https://elsewhere.example/
enable_registration: false
no_such_option: 1
rc_message: {per_second: 0.2, burst_count: 10}
"""
    answer = review(given)
    assert answer["problem"] is None
    owners = {entry["option"]: entry["owner"] for entry in answer["refused"]}
    assert owners == {
        "pid_file": "platform's",
        "listeners": "platform's",
        "redis": "refused",
        "caches.expire_caches": "refused",
        "saml2_config": "refused",
        "oidc_providers": "refused",
        "public_baseurl": "refused",
    }
    assert all(entry["why"] for entry in answer["refused"])
    assert answer["taken"] == ["server_name", "caches", "enable_registration", "rc_message"]
    assert len(answer["warnings"]) == 1
    left = yaml.safe_load(answer["config"])
    named = {option.split(".")[0] for option in owners if "." not in option}
    assert set(left) | named == set(yaml.safe_load(given))
    assert left["caches"] == {"global_factor": 1.0}


def test_what_synapse_itself_does_not_take_is_said_without_secrets() -> None:
    # Guards against: an import that is found to be impossible only when the old server is stopped.
    answer = review("default_room_version: '999'\nmacaroon_secret_key: very-secret-text\n")
    assert "999" in answer["problem"]
    assert "very-secret-text" not in answer["problem"]
    assert review("- a list")["error"]["code"] == "InvalidConfig"


def test_what_the_operator_allows_is_taken() -> None:
    # Guards against: an import that is stricter than a start.
    assert review("public_baseurl: https://elsewhere.example/", allowedHosts=["elsewhere.example"])["refused"] == []
