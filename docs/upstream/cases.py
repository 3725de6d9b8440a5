"""Minimal cases of docs/upstream.md, on an unchanged Synapse: `python docs/upstream/cases.py CASE`, with the Python that has Synapse.

Each prints what it found. SQLite is enough; nothing listens but on loopback.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import yaml
from signedjson.key import generate_signing_key, write_signing_keys
from synapse.app import homeserver as app
from synapse.config.cache import properties
from synapse.config.homeserver import HomeServerConfig
from synapse.logging.context import LoggingContext
from twisted.internet import defer, reactor, task


def listeners(*resources: str) -> list[dict[str, Any]]:
    return [{"port": 0, "type": "http", "bind_addresses": ["127.0.0.1"], "resources": [{"names": list(resources)}]}]


def configured(name: str, **options: Any) -> HomeServerConfig:
    directory = Path(tempfile.mkdtemp())
    with (directory / "signing.key").open("w") as file:
        write_signing_keys(file, [generate_signing_key("a")])
    base = {
        "server_name": f"{name}.localhost",
        "report_stats": False,
        "listeners": listeners("client"),
        "database": {"name": "sqlite3", "args": {"database": str(directory / "homeserver.db")}},
        "media_store_path": str(directory),
        "signing_key_path": str(directory / "signing.key"),
        "trusted_key_servers": [],
        "macaroon_secret_key": "secret",
        "form_secret": "secret",
    }
    (directory / "homeserver.yaml").write_text(yaml.safe_dump(base | options))
    return HomeServerConfig.load_config("cases", ["-c", str(directory / "homeserver.yaml")])


async def started(name: str, **options: Any) -> Any:
    config = configured(name, **options)
    with LoggingContext(name="start", server_name=config.server.server_name):
        hs = app.create_homeserver(config)
        app.setup(hs)
        await app.start(hs, freeze=False)
    # What a start leaves to the background.
    await task.deferLater(reactor, 2, lambda: None)
    return hs


async def threads() -> None:
    for _ in range(3):
        hs = await started("threads")
        await hs.shutdown()
        triggers = reactor._eventTriggers["shutdown"]
        print(f"threads: {threading.active_count()}, triggers: {len(triggers.before) + len(triggers.during)}")


async def handlers() -> None:
    hs = await started("handlers")
    await hs.get_datastores().main.insert_client_ip("@a:handlers.localhost", "token", "192.0.2.1", "agent", "DEVICE")
    await hs.shutdown()
    with sqlite3.connect(hs.config.database.databases[0].config["args"]["database"]) as database:
        print("addresses written:", database.execute("SELECT count(*) FROM user_ips").fetchone()[0])


async def unix_socket() -> None:
    path = f"{tempfile.mkdtemp()}/socket"
    hs = await started("unix", listeners=[{"path": path, "type": "http", "resources": [{"names": ["client"]}]}])
    await hs.shutdown()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        print("the socket still accepts connections")


async def servlets() -> None:
    await started("with-media", listeners=listeners("client", "media"))
    try:
        await started("without-media", enable_media_repo=False)
    except AttributeError as error:
        print(f"the second does not start: {error}")


async def caches() -> None:
    first = await started("small", caches={"global_factor": 0.1})
    cache = first.get_datastores().main.get_user_by_access_token.cache
    print("the first has", cache.cache.max_size, "by a factor of", properties.default_factor_size)
    configured("large", caches={"global_factor": 4}).caches.resize_all_caches()
    print("then", cache.cache.max_size, "by a factor of", properties.default_factor_size)


async def lists() -> None:
    hs = await started("lists")
    store = hs.get_datastores().main

    async def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("the database is away")

    store.db_pool.simple_select_many_batch = away
    print("state groups of an event:", await store._get_state_group_for_events(["$event"]))


CASES = {case.__name__.replace("_", "-"): case for case in (threads, handlers, unix_socket, servlets, caches, lists)}


def main() -> None:
    case = CASES.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if case is None:
        sys.exit(f"usage: cases.py {'|'.join(CASES)}")

    def run() -> None:
        running = defer.ensureDeferred(case())
        running.addErrback(lambda failure: failure.printTraceback())
        running.addBoth(lambda _: (sys.stdout.flush(), os._exit(0)))

    reactor.callWhenRunning(run)
    reactor.run()


main()
