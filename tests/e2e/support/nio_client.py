"""A second Matrix client, of another make (matrix-nio): logs in, sends and syncs until told to stop, and reports.

Arguments: PORT HOST USER [POLL]. Without POLL, the milliseconds that a sync waits, it sends all the time; else only when told to by the
word "send". The password and the words come on standard input, the report goes to standard output as JSON.
"""

import asyncio
import json
import sys

import aiohttp
from nio import AsyncClient, AsyncClientConfig, ErrorResponse, RoomCreateResponse, RoomMessageText, SyncResponse


async def main() -> None:
    port, host, user, *poll = sys.argv[1:]
    loop = asyncio.get_running_loop()
    password = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
    config = AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0, custom_headers={"Host": host})
    client = AsyncClient(f"http://127.0.0.1:{port}", f"@{user}:{host}", config=config)
    errors: list[str] = []
    heard: list[str] = []
    sent: list[str] = []

    async def on_request_end(_session, _context, params) -> None:
        if params.response.status >= 400:
            errors.append(f"{params.method} {params.url.path}: status {params.response.status}")

    async def on_request_exception(_session, _context, params) -> None:
        if not isinstance(params.exception, asyncio.CancelledError):
            errors.append(f"{params.method} {params.url.path}: {params.exception!r}")

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(on_request_end)
    trace.on_request_exception.append(on_request_exception)

    login = await client.login(password)
    if isinstance(login, ErrorResponse):
        raise SystemExit(f"cannot log in: {login}")
    # nio makes its session at the first request; one that is watched takes its place.
    await client.client_session.close()
    client.client_session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), trace_configs=[trace])
    created = await client.room_create()
    if not isinstance(created, RoomCreateResponse):
        raise SystemExit(f"cannot create a room: {created}")
    room_id = created.room_id
    client.add_event_callback(lambda room, event: heard.append(event.body) if room.room_id == room_id else None, RoomMessageText)
    first = await client.sync(timeout=0)
    if not isinstance(first, SyncResponse):
        raise SystemExit(f"cannot sync: {first}")
    stop = asyncio.Event()

    async def sync() -> None:
        while not stop.is_set() or len(heard) < len(sent):
            answer = await client.sync(timeout=int(poll[0]) if poll else 5000)
            if not isinstance(answer, SyncResponse):
                errors.append(f"sync: {answer}")
                await asyncio.sleep(0.5)

    async def send_one(n: int) -> None:
        answer = await client.room_send(room_id, "m.room.message", {"msgtype": "m.text", "body": f"nio {n}"})
        if isinstance(answer, ErrorResponse):
            errors.append(f"send: {answer}")
        else:
            sent.append(f"nio {n}")

    async def send() -> None:
        n = 0
        while not stop.is_set() and not poll:
            await send_one(n)
            n += 1
            await asyncio.sleep(0.05)

    async def obey() -> None:
        n = 0
        while (await loop.run_in_executor(None, sys.stdin.readline)).strip() == "send":
            await send_one(n)
            n += 1
        stop.set()

    print(json.dumps({"ready": True}), flush=True)
    tasks = asyncio.gather(sync(), send())
    await obey()
    await asyncio.wait_for(tasks, 60)
    await client.close()
    print(json.dumps({"sent": sent, "heard": heard, "errors": errors}), flush=True)


asyncio.run(main())
