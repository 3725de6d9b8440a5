from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Databases, Preparer
from .postgres import Postgres
from .shard import Client, Shard, release_of
from .watching import PATIENCE_SECONDS

pytestmark = pytest.mark.shared_shard

Assign = Callable[..., dict[str, Any]]


def migrate(assignment: dict[str, Any], name: str = "a", shard: str = "s", instance: str = "i") -> dict[str, Any]:
    return {"command": "migrate", "assignment": assignment, "name": name, "shard": shard, "instance": instance}


@pytest.mark.smoke
def test_template_is_complete_and_nobodys(databases: Databases, postgres: Postgres, shard: Shard, assign: Assign) -> None:
    # Guards against: a copy of the template runs background updates again, or carries the template's own server name.
    database = databases.create()
    assert postgres.query("SELECT count(*) FROM background_updates", database=database) == [(0,)]
    assert postgres.query("SELECT version FROM schema_version", database=database) == [
        (shard.call("GET", "/v1/shard").json["schemaVersion"],)
    ]
    tables = postgres.query(
        "SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'",
        database=database,
    )
    for (table,) in tables:
        found = postgres.query(f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%%template.invalid%%'", database=database)
        assert found == [(0,)], table
    Client(shard.expect_started("a", assign("a", database=database))["address"]).register().work()


def test_migrate_claims_and_prepares(python: Path, databases: Databases, assign: Assign, postgres: Postgres, shard: Shard) -> None:
    # Guards against: a shard starts on a database whose schema is not ready, or that the preparer did not take for it.
    empty = databases.create_empty("migrate_me")
    assignment = assign("a", epoch=4, database=empty)
    preparer = Preparer(python)
    assert preparer.ready["event"] == "ready"
    # The media of a tenant without a shard are where nobody gets in, and what leads to them leads nowhere.
    media = Path(assignment["base"]["media_store_path"])
    media.parent.mkdir(exist_ok=True)
    media.symlink_to("nowhere")
    answer = preparer.send(migrate(assignment, shard="test-0", instance="prep"))
    media.unlink()
    assert answer["event"] == "done", answer
    assert (answer["from"], answer["to"]) == (None, preparer.ready["schemaVersion"])
    again = preparer.send(migrate(assignment, shard="test-0", instance="prep"))
    assert (again["from"], again["to"]) == (answer["to"], answer["to"])
    assert postgres.query("SELECT epoch, shard, instance FROM synapse_shards.fence", database=empty) == [(4, "test-0", "prep")]
    other = preparer.send(migrate(assignment, shard="other"))
    assert (other["event"], other["code"]) == ("error", "Fenced")
    assert preparer.close() == 0
    Client(shard.expect_started("a", assignment)["address"]).register().work()


def test_errors_are_events(python: Path, databases: Databases, assign: Assign, postgres: Postgres) -> None:
    # Guards against: the preparer dies or prints a stack trace on what it cannot do, with a secret in it.
    too_new = databases.create()
    postgres.query("UPDATE schema_compat_version SET compat_version = 9999", database=too_new)
    preparer = Preparer(python)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"command": "nonsense"}, "InvalidConfig"),
        ({"command": "template"}, "InvalidConfig"),
        ({"command": "template", "database": databases.arguments("nowhere")}, "DatabaseMissing"),
        ({"command": "migrate", "assignment": {}}, "InvalidConfig"),
        (migrate(assign("a", password="wrong-password", database="postgres")), "DatabaseAuthenticationFailed"),
        (migrate(assign("a", database=too_new)), "DatabaseUnsuitable"),
        (migrate(assign("a", overrides="a: [", database=too_new)), "InvalidConfig"),
        ({**migrate(assign("a", database=too_new)), "name": "../x"}, "InvalidConfig"),
    ]
    for command, code in cases:
        answer = preparer.send(command)
        assert (answer["event"], answer["code"]) == ("error", code), answer
        assert "wrong-password" not in answer["message"]
    assert preparer.close() == 0


def test_work_for_nobody_is_given_up(python: Path, databases: Databases) -> None:
    # Guards against: a preparer whose controller was killed goes on forever at a database that does not answer.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        preparer = Preparer(python)
        database = {**databases.arguments("nowhere"), "host": "127.0.0.1", "port": silent.getsockname()[1]}
        preparer.begin({"command": "template", "database": database})
        assert preparer.close() == 1


@pytest.mark.skipif("MULTI_SYNAPSE_OLD_PYTHON" not in os.environ, reason="MULTI_SYNAPSE_OLD_PYTHON names no release with an older schema")
def test_upgrade_from_an_older_schema(python: Path, postgres: Postgres, assign: Assign, shard: Shard, folder: Path) -> None:
    # Guards against: a tenant of an older release cannot be upgraded, or loses its data.
    old_python = Path(os.environ["MULTI_SYNAPSE_OLD_PYTHON"])
    allowed = [release_of(old_python)]
    old = Shard(old_python, folder / "old", "old", allowUntestedReleases=allowed)
    database = Databases(postgres, old_python, allowed).create()
    assignment = assign("a", database=database)
    old.start()
    try:
        client = Client(old.expect_started("a", assignment)["address"]).register()
        client.create_room()
        event = client.send("from the old release")
        old.delete("a", 5)
    finally:
        old.kill()
    preparer = Preparer(python)
    answer = preparer.send(migrate({**assignment, "epoch": 2}, shard="test-0"))
    assert answer["event"] == "done", answer
    assert answer["from"] < answer["to"] == preparer.ready["schemaVersion"]
    preparer.close()
    client.address = shard.expect_started("a", {**assignment, "epoch": 2})["address"]
    assert client.ok("GET", f"/_matrix/client/v3/rooms/{client.room}/event/{event}")["content"]["body"] == "from the old release"
    client.work()


def test_one_whose_starter_went_meanwhile_ends() -> None:
    # Guards against: a preparer whose shard or controller was killed while it imported Synapse stays forever.
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "multi_synapse.prepare"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    try:
        assert process.wait(PATIENCE_SECONDS) is not None
    finally:
        process.kill()
