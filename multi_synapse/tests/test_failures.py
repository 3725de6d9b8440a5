"""One tenant cannot hurt another: every kind of failing start, beside neighbours that must not notice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Databases
from .postgres import Postgres
from .shard import Client, Shard, expect_no_stall
from .watching import PATIENCE_SECONDS, wait_for

Assign = Callable[..., dict[str, Any]]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A database that accepts TCP and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener.getsockname()[1]


@pytest.fixture
def neighbour(shard: Shard, assign: Assign) -> Client:
    # Two, so that nothing in a start is the first of its kind any more.
    shard.expect_started("warm", assign("warm"))
    client = Client(shard.expect_started("neighbour", assign("neighbour"))["address"]).register()
    client.work()
    shard.stats()
    return client


def expect_refused(shard: Shard, name: str, assignment: dict[str, Any], code: str, words: str) -> str:
    answer = shard.put(name, assignment)
    assert answer.status == (409 if code == "Fenced" else 422), answer.body
    assert answer.code == code, answer.body
    assert words.lower() in answer.message.lower(), answer.message
    assert "\n" not in answer.message
    assert name not in shard.tenants()
    return answer.message


def test_failing_starts_are_explained_and_leave_nothing(
    shard: Shard, assign: Assign, neighbour: Client, databases: Databases, postgres: Postgres, silent_port: int
) -> None:
    # Guards against: a misconfigured tenant has no reason a person understands, stalls its neighbours, or leaves threads,
    # connections, HomeServers, triggers or files behind.
    wrong_locale = f"{databases.create_empty('wrong_locale_source')}"
    postgres.query("CREATE DATABASE wrong_locale OWNER tenant ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0")
    too_new = databases.create()
    postgres.query("UPDATE schema_version SET version = 9999", database=too_new)
    postgres.query("UPDATE schema_compat_version SET compat_version = 9999", database=too_new)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed_port = probe.getsockname()[1]

    def with_key(assignment: dict[str, Any], key: str) -> dict[str, Any]:
        return {**assignment, "signingKey": key}

    cases: list[tuple[dict[str, Any], str, str]] = [
        (assign("bad", overrides="a: [1\nb: 2"), "InvalidConfig", "line 2"),
        (assign("bad", overrides="- 1"), "InvalidConfig", "expected a mapping"),
        (assign("bad", overrides="public_baseurl: 5"), "InvalidConfig", "public_baseurl"),
        (assign("bad", overrides="trusted_key_servers: nonsense"), "InvalidConfig", "trusted_key_servers"),
        (assign("bad", overrides="caches: {global_factor: lots}"), "InvalidConfig", "global_factor"),
        (assign("bad", overrides="media_storage_providers: 7"), "InvalidConfig", ""),
        (assign("bad", overrides="listeners: [{port: 8008}]"), "OptionNotAllowed", "listeners"),
        (assign("bad", overrides="log_config: /x"), "OptionNotAllowed", "log_config"),
        (with_key(assign("bad"), ""), "SigningKeyInvalid", "empty"),
        (with_key(assign("bad"), "ed25519 a_b nonsense!"), "SigningKeyInvalid", "form"),
        (assign("bad", overrides="signing_key_path: /does/not/exist"), "OptionNotAllowed", "signing_key_path"),
        (assign("bad", overrides="signing_key: ''"), "SigningKeyInvalid", "empty"),
        (assign("bad", password="wrong-password"), "DatabaseAuthenticationFailed", "password authentication failed"),
        (assign("bad", user="nobody_here"), "DatabaseAuthenticationFailed", "refuses"),
        (assign("bad", port=closed_port), "DatabaseUnreachable", "refused"),
        (assign("bad", host="no-such-host.invalid"), "DatabaseUnreachable", "no-such-host.invalid"),
        (assign("bad", database="does_not_exist"), "DatabaseMissing", "does_not_exist"),
        (assign("bad", database="wrong_locale"), "DatabaseUnsuitable", "collation"),
        (assign("bad", database=too_new), "DatabaseUnsuitable", "schema"),
        (assign("bad", nonsense="x"), "DatabaseUnsuitable", "nonsense"),
    ]
    before = {**shard.stats(), "threads": shard.fewest_threads()}
    for assignment, code, words in cases:
        message = expect_refused(shard, "bad", assignment, code, words)
        for secret in ("wrong-password", "tenant-database-password", "macaroon-secret"):
            assert secret not in message
        expect_no_stall(shard)
    neighbour.work()
    after = shard.stats()
    assert after["liveHomeServers"] == before["liveHomeServers"]
    assert after["triggers"] == before["triggers"]
    assert shard.fewest_threads() <= before["threads"]
    assert after["databaseConnections"] <= 10
    assert not list((shard.folder / "state" / "tenants").glob("bad*"))
    assert "bad.localhost" not in shard.call("GET", "/metrics").body.decode()
    assert postgres.connections_to(wrong_locale) == 0


def test_a_server_that_cannot_work_is_told_apart_from_a_tenants_mistake(
    shard: Shard, assign: Assign, databases: Databases, postgres: Postgres
) -> None:
    read_only, crowded, full, memoryless = (databases.create() for _ in range(4))
    postgres.query(f"ALTER DATABASE {read_only} SET default_transaction_read_only = on")
    postgres.query(f"ALTER DATABASE {crowded} CONNECTION LIMIT 0")
    for database, state in ((full, "53100"), (memoryless, "53200")):
        # No disk is filled for a test; PostgreSQL says it in the same way.
        postgres.query(
            f"""CREATE FUNCTION cannot() RETURNS event_trigger LANGUAGE plpgsql AS
              $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{state}'; END $$;
            CREATE EVENT TRIGGER cannot ON ddl_command_start EXECUTE FUNCTION cannot()""",
            database=database,
        )
    for database, code, words in (
        (read_only, "DatabaseReadOnly", "takes no writes"),
        (crowded, "DatabaseOverloaded", "no connection, memory"),
        (full, "DatabaseFull", "disk is full"),
        (memoryless, "DatabaseOverloaded", "no connection, memory"),
    ):
        expect_refused(shard, "bad", assign("bad", database=database), code, words)
    postgres.query(f"ALTER DATABASE {read_only} RESET default_transaction_read_only")
    shard.expect_started("bad", assign("bad", database=read_only))


def test_a_database_that_never_answers(new_shard: Callable[..., Shard], assign: Assign, silent_port: int) -> None:
    # Guards against: a hanging database stalls every tenant of the shard, and starts to it hang forever.
    shard = new_shard(startSeconds=4)
    shard.expect_started("warm", assign("warm"))
    client = Client(shard.expect_started("neighbour", assign("neighbour"))["address"]).register()
    shard.stats()
    begun = time.monotonic()
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(shard.put(f"bad-{n}", assign(f"bad-{n}", port=silent_port, database="any"))))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        client.work()
    assert [(answer.status, answer.code) for answer in answers] == [(422, "DatabaseUnreachable")] * 6
    assert time.monotonic() - begun < PATIENCE_SECONDS
    expect_no_stall(shard)
    assert set(shard.tenants()) == {"warm", "neighbour"}
    # And a tenant that can start does so meanwhile.
    hanging = threading.Thread(target=lambda: shard.put("bad", assign("bad", port=silent_port, database="any")))
    hanging.start()
    shard.expect_started("good", assign("good"))
    assert hanging.is_alive()
    # A start that is under way can be given up.
    assert shard.delete("bad").json["absent"] in (True, False)
    hanging.join(PATIENCE_SECONDS)
    assert not hanging.is_alive()


class Freezer:
    """A proxy before PostgreSQL that can stop passing bytes on, without closing anything."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(50)
        self.port = self._listener.getsockname()[1]
        self.flowing = threading.Event()
        self.flowing.set()
        self.passed = 0
        self.freeze_after: int | None = None
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.passed += 1
                if self.freeze_after is not None and self.passed > self.freeze_after:
                    self.flowing.clear()
                self.flowing.wait()
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self) -> None:
        self.flowing.set()
        for end in (self._listener, *self._sockets):
            end.close()


@pytest.fixture
def freezer(postgres: Postgres) -> Iterator[Freezer]:
    proxy = Freezer(postgres.port)
    yield proxy
    proxy.close()


def test_a_database_that_stops_answering_in_the_middle_of_a_start(
    new_shard: Callable[..., Shard], assign: Assign, freezer: Freezer
) -> None:
    # Guards against: a database that hangs during Synapse's set-up, which is synchronous, stalls the reactor or leaks the start.
    shard = new_shard(startSeconds=3)
    shard.expect_started("warm", assign("warm"))
    client = Client(shard.expect_started("neighbour", assign("neighbour"))["address"]).register()
    before = shard.stats()
    for packets in (30, 150, 300):
        freezer.passed, freezer.freeze_after = 0, packets
        freezer.flowing.set()
        answers: list[Any] = []
        start = threading.Thread(target=lambda: answers.append(shard.put("bad", assign("bad", port=freezer.port))))
        start.start()
        while start.is_alive():
            client.work()
        assert answers[0].code == "DatabaseUnreachable", (packets, answers[0].body)
        expect_no_stall(shard)
    after = shard.stats()
    assert (after["liveHomeServers"], after["triggers"]) == (before["liveHomeServers"], before["triggers"])
    freezer.freeze_after = None
    freezer.flowing.set()
    shard.expect_started("good", assign("good", port=freezer.port))


def test_stopping_a_tenant_whose_database_hangs(new_shard: Callable[..., Shard], assign: Assign, freezer: Freezer) -> None:
    # Guards against: a tenant with a dead database cannot be moved away, or stalls the others while it is stopped.
    shard = new_shard()
    client = Client(shard.expect_started("neighbour", assign("neighbour"))["address"]).register()
    stuck = Client(shard.expect_started("stuck", assign("stuck", port=freezer.port))["address"]).register()
    stuck.create_room()
    shard.stats()
    freezer.flowing.clear()
    sender = threading.Thread(target=lambda: stuck.call("GET", "/_matrix/client/v3/sync?timeout=0"), daemon=True)
    sender.start()
    answers: list[Any] = []
    stop = threading.Thread(target=lambda: answers.append(shard.delete("stuck", 1)))
    stop.start()
    while stop.is_alive():
        client.work()
    assert answers[0].status == 200
    assert answers[0].json["seconds"] < PATIENCE_SECONDS
    expect_no_stall(shard)
    assert set(shard.tenants()) == {"neighbour"}


def test_a_request_whose_connection_to_the_database_was_ended_says_so(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    assignment = assign("waits")
    client = Client(shard.expect_started("waits", assignment)["address"]).register()
    client.create_room()
    database = assignment["base"]["database"]["args"]["dbname"]
    path = f"/_matrix/client/v3/rooms/{client.room}/messages?dir=b"
    postgres.query(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    postgres.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", database)
    answers = [client.call("GET", path) for _ in range(4)]
    assert {answer.status for answer in answers} == {503}
    assert {answer.headers["x-synapse-shards"] for answer in answers} == {"database-away"}
    postgres.query(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    # Each connection that was lost is noticed by the request that uses it next.
    wait_for(lambda: client.call("GET", path).status == 200)


@pytest.mark.smoke
def test_a_room_takes_messages_after_the_database_went_away_while_one_was_stored(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a row that Synapse did not come to remove keeps a room from everything until the next start.
    assignment = assign("stores")
    client = Client(shard.expect_started("stores", assignment)["address"]).register()
    client.create_room()
    database = assignment["base"]["database"]["args"]["dbname"]
    ends = "CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$"
    postgres.query(ends, database=database)
    for what in ("INSERT ON events", "DELETE ON state_groups_persisting"):
        trigger = f"CREATE TRIGGER ends BEFORE {what} FOR EACH ROW EXECUTE FUNCTION ends()"
        postgres.query(trigger, database=database)
    path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/txn"
    message = {"msgtype": "m.text", "body": "stored"}
    assert client.call("PUT", path, message).status == 503
    assert postgres.query("SELECT count(*) FROM state_groups_persisting", database=database) == [(1,)]
    postgres.query("DROP FUNCTION ends CASCADE", database=database)
    wait_for(lambda: client.call("PUT", path, message).status == 200)
    found = client.call("GET", f"/_matrix/client/v3/rooms/{client.room}/messages?dir=b").json["chunk"]
    assert [event["content"]["body"] for event in found if event["type"] == "m.room.message"] == ["stored"]


@pytest.mark.smoke
def test_what_could_not_be_looked_up_is_not_taken_for_absent(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a list of lookups that failed is answered as if nothing had been found.
    assignment = assign("reads")
    client = Client(shard.expect_started("reads", assignment)["address"]).register()
    client.create_room()
    path = f"/_matrix/client/v3/rooms/{client.room}/messages?dir=b"
    database = assignment["base"]["database"]["args"]["dbname"]
    # Nothing is in the caches of a start.
    shard.delete("reads")
    client.address = shard.expect_started("reads", {**assignment, "epoch": assignment["epoch"] + 1})["address"]
    postgres.query("ALTER TABLE event_to_state_groups RENAME TO apart", database=database)
    postgres.query("CREATE VIEW event_to_state_groups AS SELECT * FROM apart WHERE 1 / (event_id = '')::int = 1", database=database)
    postgres.query("GRANT SELECT ON event_to_state_groups TO tenant", database=database)
    shard.mark_log()
    assert client.call("GET", path).status == 500
    log = shard.logged
    assert "division by zero" in log
    assert "KeyError" not in log


def test_modules(python: Path, assign: Assign, folder: Path) -> None:
    # Guards against: a module that raises or wants to end the process takes the shard with it.
    modules = folder / "modules"
    modules.mkdir()
    (modules / "bad_module.py").write_text(
        "import sys\n"
        "class Raises:\n    def __init__(self, config, api): raise RuntimeError('no luck')\n"
        "class Exits:\n    def __init__(self, config, api): sys.exit(3)\n"
        "class BadConfig:\n    @staticmethod\n    def parse_config(config): raise ValueError('no config')\n"
        "class Good:\n    def __init__(self, config, api): pass\n"
    )
    names = ["bad_module.Raises", "bad_module.Exits", "bad_module.BadConfig", "bad_module.Missing", "no_such_module.X", "bad_module.Good"]
    shard = Shard(python, folder / "m")
    policy = {"allowedModules": names}
    try:
        shard.start(extra_path=modules)
        shard.expect_started("neighbour", assign("neighbour"))
        for name, words in (
            ("bad_module.Raises", "no luck"),
            ("bad_module.Exits", "3"),
            ("bad_module.Missing", "Missing"),
            ("no_such_module.X", "no_such_module"),
        ):
            expect_refused(shard, "bad", assign("bad", overrides=f"modules: [{{module: {name}}}]", policy=policy), "ModuleFailed", words)
        bad_config = assign("bad", overrides="modules: [{module: bad_module.BadConfig}]", policy=policy)
        expect_refused(shard, "bad", bad_config, "InvalidConfig", "bad_module.BadConfig")
        expect_refused(
            shard, "bad", assign("bad", overrides="modules: [{module: other.Module}]", policy=policy), "OptionNotAllowed", "other.Module"
        )
        shard.expect_started("good", assign("good", overrides="modules: [{module: bad_module.Good}]", policy=policy))
    finally:
        shard.kill()
