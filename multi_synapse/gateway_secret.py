"""What proves to a tenant's listener that a request comes from a gateway (docs/control-api.md, "The gateway secret")."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable

HEADER = b"x-synapse-shards-secret"

_DAY_SECONDS = 86_400
#: Checked ones are kept, so that a request costs a look into a set: the present, the one before, and some at a restart.
_KEPT = 16


class GatewaySecrets:
    """One secret a day, made from the control token: nothing has to be stored, and a shard that restarts knows the old ones.

    Which of them are accepted depends on what the controller has been told, not on the clock: while it is away, gateways have
    nothing newer.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        self._key = token.encode()
        self._clock = clock
        self._newest: int | None = None
        self._oldest: int | None = None
        self._accepted: set[bytes] = set()

    def tell(self) -> str:
        """The present secret, for the controller; the one before the last that it was told expires."""
        # A clock that is set back does not bring an old secret back.
        generation = max(int(self._clock() // _DAY_SECONDS), self._newest or 0)
        if generation != self._newest:
            self._oldest, self._newest = self._newest, generation
            self._accepted.clear()
        return self._secret(generation)

    def accepts(self, given: bytes | None) -> bool:
        if given is None:
            return False
        if given in self._accepted:
            return True
        generation, _, _ = given.partition(b".")
        if not generation.isdigit() or len(generation) > 9 or (self._oldest is not None and int(generation) < self._oldest):
            return False
        if not hmac.compare_digest(given, self._secret(int(generation)).encode()):
            return False
        if len(self._accepted) < _KEPT:
            self._accepted.add(given)
        return True

    def _secret(self, generation: int) -> str:
        digest = hmac.new(self._key, f"synapse-shards gateway {generation}".encode(), hashlib.sha256).digest()
        return f"{generation}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


class _OfShard:
    """The shard's own; without it, nothing is answered."""

    secrets: GatewaySecrets | None = None

    def accepts(self, given: bytes | None) -> bool:
        return self.secrets is not None and self.secrets.accepts(given)


of_shard = _OfShard()
