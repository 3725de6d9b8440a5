"""Keeps the quotas of running tenants that Synapse has no bound for (docs/quotas.md).

How many users there are is counted when one is registered; media and the database's size are measured from time to time, and what would
add to them is refused before Synapse sees it. Nothing is ever removed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

from synapse.api.errors import Codes, ResourceLimitError, cs_error
from synapse.http.server import respond_with_json
from synapse.logging.context import PreserveLoggingContext, make_deferred_yieldable
from twisted.internet import defer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .options.quotas import Quotas

logger = logging.getLogger(__name__)

#: What other things write to a database in this time is small beside a quota.
_DATABASE_SECONDS = 60.0
#: In between it is added up; this finds what was deleted.
_MEDIA_SECONDS = 600.0
#: After a refusal somebody may have made room.
_AFTER_REFUSAL_SECONDS = 10.0
_UPLOAD = re.compile(rb"/_matrix/(?:media/[^/]+|client/[^/]+/media)/upload(?:/.*)?")
#: What makes a room, or an event with content in one. Leaving, redacting and reading stay possible, and so does all that encryption needs.
_WRITE = re.compile(
    rb"/_matrix/client/(?:[^/]+/){1,2}(?:createRoom(?:/.*)?|join/.*|knock/.*|rooms/[^/]+/(?:send|state|batch_send|join|knock|invite|upgrade)(?:/.*)?)"
    rb"|/_synapse/admin/v1/(?:join/.*|send_server_notice(?:/.*)?)"
)
_WRITES = (b"POST", b"PUT")


class Refused(Resource):
    """The answer to what would add to a resource of which the tenant has all it may have."""

    isLeaf = True

    def __init__(self, message: str, limit_type: str, admin_contact: str | None) -> None:
        super().__init__()
        self._body = cs_error(
            message, Codes.RESOURCE_LIMIT_EXCEEDED, limit_type=limit_type, **({"admin_contact": admin_contact} if admin_contact else {})
        )

    def render(self, request: Any) -> int:
        respond_with_json(request, 403, self._body, send_cors=True)
        return int(NOT_DONE_YET)


class _Measure:
    """A figure that is asked for now and then, and not known before the first answer."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.value: int | None = None
        self.asked_at: float | None = None
        self.asking = False

    def is_due(self, now: float, every: float) -> bool:
        return not self.asking and (self.asked_at is None or now - self.asked_at >= every)


class Keeper:
    """Keeps the quotas of one tenant that runs."""

    def __init__(self, hs: Any, quotas: Quotas) -> None:
        self._hs = hs
        self._quotas = quotas
        self._admin_contact: str | None = hs.config.server.admin_contact
        self._database = _Measure(_DATABASE_SECONDS)
        self._media = _Measure(_MEDIA_SECONDS)
        self._registering = defer.DeferredLock()
        #: What was refused since the start, by quota.
        self.refused: dict[str, int] = {}

    @property
    def bounds_active_users(self) -> bool:
        return self._quotas.monthly_active_users is not None

    def begin(self) -> None:
        """So that the figures are there when the first request comes."""
        if self._quotas.media_bytes is not None:
            self._ask(self._media, self._media_bytes)
        if self._quotas.database_bytes is not None:
            self._ask(self._database, self._database_bytes)

    def refusal(self, request: Any) -> Resource | None:
        """What answers a request in Synapse's place, if it may not come in."""
        if request.method not in _WRITES:
            return None
        if self._quotas.media_bytes is not None and _UPLOAD.fullmatch(request.path):
            return self._refuse_media(self._quotas.media_bytes, request)
        if self._quotas.database_bytes is not None and _WRITE.fullmatch(request.path):
            return self._refuse_write(self._quotas.database_bytes)
        return None

    def _refuse_media(self, most: int, request: Any) -> Resource | None:
        media, length = self._media, _length(request)
        if media.value is not None and media.value + length > most:
            self._look(media, self._media_bytes, _AFTER_REFUSAL_SECONDS)
            return self._refused("mediaBytes", "This homeserver has no more room for media; nothing that is there is removed")
        self._look(media, self._media_bytes, media.every)
        if media.value is not None:
            media.value += length
            request.notifyFinish().addBoth(lambda _: self._uploaded(request.code, length))
        return None

    def _uploaded(self, status: int, length: int) -> None:
        if status >= 400 and self._media.value is not None:
            self._media.value = max(0, self._media.value - length)

    def _refuse_write(self, most: int) -> Resource | None:
        database = self._database
        if database.value is not None and database.value > most:
            self._look(database, self._database_bytes, _AFTER_REFUSAL_SECONDS)
            return self._refused("databaseBytes", "This homeserver has no more room for messages; nothing that is there is removed")
        self._look(database, self._database_bytes, database.every)
        return None

    async def admit_user(self, register: Callable[[], Awaitable[None]]) -> None:
        """Registers a user unless there are as many as there may be. @raises ResourceLimitError"""
        most = self._quotas.users
        if most is None:
            return await register()
        # One at a time: each counts those before it.
        await make_deferred_yieldable(self._registering.acquire())
        try:
            if await self._users() >= most:
                self._count("users")
                raise ResourceLimitError(
                    403, "This homeserver has as many users as it may have", admin_contact=self._admin_contact, limit_type="users"
                )
            await register()
        finally:
            with PreserveLoggingContext():
                self._registering.release()

    def _refused(self, quota: str, message: str) -> Resource:
        self._count(quota)
        return Refused(message, quota, self._admin_contact)

    def _count(self, quota: str) -> None:
        self.refused[quota] = self.refused.get(quota, 0) + 1

    def _look(self, measure: _Measure, ask: Callable[[], Awaitable[int]], every: float) -> None:
        if measure.is_due(self._now(), every):
            self._ask(measure, ask)

    def _ask(self, measure: _Measure, ask: Callable[[], Awaitable[int]]) -> None:
        measure.asking = True
        measure.asked_at = self._now()

        async def asking() -> None:
            try:
                measure.value = await ask()
            except Exception as error:
                logger.warning("%s: what it has of a quota cannot be asked for: %s", self._hs.hostname, error)
            finally:
                measure.asking = False

        self._hs.run_as_background_process("quotas", asking)

    def _now(self) -> float:
        return float(self._hs.get_clock().time())

    async def _users(self) -> int:
        return await self._number("SELECT count(*) FROM users WHERE deactivated = 0 AND is_guest = 0 AND appservice_id IS NULL")

    async def _media_bytes(self) -> int:
        # What is cached of others' media, thumbnails and previews can be had again.
        return await self._number("SELECT coalesce(sum(media_length), 0) FROM local_media_repository WHERE url_cache IS NULL")

    async def _database_bytes(self) -> int:
        return await self._number("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")

    async def _number(self, sql: str) -> int:
        def ask(txn: Any) -> int:
            txn.execute(sql)
            return int(txn.fetchone()[0])

        return int(await self._hs.get_datastores().main.db_pool.runInteraction("quotas", ask))


def _length(request: Any) -> int:
    """Of the body, which is there already, in one piece or in many."""
    place = request.content.tell()
    length = request.content.seek(0, os.SEEK_END)
    request.content.seek(place)
    return int(length)


class KeepersOfTenants:
    def __init__(self) -> None:
        self._by_server_name: dict[str, Keeper] = {}

    def add(self, hs: Any, quotas: Quotas) -> Keeper | None:
        if quotas == Quotas():
            return None
        keeper = self._by_server_name[hs.hostname] = Keeper(hs, quotas)
        keeper.begin()
        return keeper

    def of(self, server_name: str) -> Keeper | None:
        return self._by_server_name.get(server_name)

    def forget(self, server_name: str) -> None:
        self._by_server_name.pop(server_name, None)


keepers_of_tenants = KeepersOfTenants()
