"""A bot made with mautrix, which bridges are made with: says on stdout which messages it got. Ends with its stdin.

    mautrix_bot.py PORT ID AS_TOKEN HS_TOKEN     PORT 0: any; the first line is {"port": PORT}
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mautrix.appservice import AppService
from mautrix.appservice.state_store import FileASStateStore
from mautrix.types import Event


async def main(directory: str, port: int, service_id: str, as_token: str, hs_token: str) -> None:
    bot = AppService(
        server="http://127.0.0.1:1",
        domain="localhost",
        id=service_id,
        as_token=as_token,
        hs_token=hs_token,
        bot_localpart=service_id,
        # By default a file where it was started.
        state_store=FileASStateStore(path=str(Path(directory) / "state.json"), binary=False),
    )

    @bot.matrix_event_handler
    async def got(event: Event) -> None:
        body = getattr(event.content, "body", None)
        if isinstance(body, str):
            print(json.dumps({"body": body}), flush=True)

    await bot.start("127.0.0.1", port)
    [address] = bot.runner.addresses
    print(json.dumps({"port": address[1]}), flush=True)
    bot.ready = True
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await bot.stop()


with TemporaryDirectory() as own:
    asyncio.run(main(own, int(sys.argv[1]), *sys.argv[2:5]))
