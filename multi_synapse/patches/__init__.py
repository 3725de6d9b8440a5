"""Every change this runtime makes to Synapse, by name. Each says why it is needed and for which releases it was tested.

Synapse is made for composing several homeservers into one process (`create_homeserver`, `setup`, `start(freeze=False)`,
`shutdown`); these close what that leaves open. A patch that no longer finds what it changes fails at once, at import: a new
release must be looked at, not run by luck.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from . import database, http, images, process, series, start, stops, tenants, tls

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patch:
    name: str
    why: str
    #: Oldest and newest Synapse release it was tested with.
    releases: tuple[str, str]
    apply: Callable[[], None]


_TESTED = ("1.157.2", "1.163.2")

PATCHES: tuple[Patch, ...] = (
    Patch("logging", "each tenant adds a root handler, or reconfigures logging of the whole process", _TESTED, process.own_logging),
    Patch(
        "systemd", "each tenant tells systemd that the process is ready, and leaves a trigger behind", _TESTED, process.no_systemd_notices
    ),
    Patch("resolver", "each tenant makes a resolver pool of 5 threads and never ends it", _TESTED, process.share_resolver),
    Patch("localhost", "names under .localhost are loopback (RFC 6761), which DNS need not know", _TESTED, process.answer_localhost_srv),
    Patch(
        "threads",
        "each tenant has its own database threads and joins them on the reactor when it stops",
        _TESTED,
        database.share_database_threads,
    ),
    Patch("fence", "each new database connection must prove that this process owns the database", _TESTED, database.check_fence_on_connect),
    Patch(
        "connect",
        "set-up connects on the reactor: a database that never answers stalls every tenant",
        _TESTED,
        database.connect_off_the_reactor,
    ),
    Patch(
        "caches", "cache factors are kept once per process: the last tenant's would apply to all", _TESTED, tenants.size_caches_per_tenant
    ),
    Patch(
        "passwords",
        "bcrypt shares a pool with JSON encoding: logins at one tenant hold up all others",
        _TESTED,
        tenants.limit_password_hashing,
    ),
    Patch("templates", "each tenant compiles the same 19 templates again, about 40 ms", _TESTED, start.share_compiled_templates),
    Patch("pages", "each tenant keeps the same two rendered pages, 48 KiB", _TESTED, start.share_rendered_pages),
    Patch("schemas", "each tenant checks the same constant schemas against the meta-schema again", _TESTED, start.share_validators),
    Patch("yaml", "YAML is read by the slow pure-Python parser", _TESTED, start.use_fast_yaml),
    Patch("servlets", "making 330 servlets keeps the reactor for 30 ms", _TESTED, start.register_servlets_in_pieces),
    Patch("tls", "each tenant loads every certificate authority of the platform twice: 1.7 MiB, 20 ms", _TESTED, tls.share_tls_contexts),
    Patch("series", "each tenant has 340 children of metrics, of which a shard exports few", _TESTED, series.keep_read_families_only),
    Patch(
        "long-polls",
        "a draining tenant must answer waiting requests now, and not wait in later ones",
        _TESTED,
        http.make_long_polls_drainable,
    ),
    Patch(
        "images",
        "images are decoded in the process of all tenants, without a bound, and with the last tenant's limit",
        _TESTED,
        images.decode_images_apart,
    ),
    Patch("processes", "a stop must know what is in work, and what of it to wait for", _TESTED, stops.note_background_processes),
    Patch(
        "services-in-flight",
        "what is on its way to an application service is in local variables: a stop would lose it",
        _TESTED,
        stops.note_transactions_to_services,
    ),
    Patch(
        "servers-in-flight",
        "what is on its way to another server is in local variables: a stop would lose it",
        _TESTED,
        stops.note_transactions_to_servers,
    ),
    Patch("queues-of-servers", "a start must put back what a stop has kept", _TESTED, stops.take_up_queues_of_servers),
    Patch("log-dates", "each listener formats the time once a second for a log that is never written", _TESTED, http.no_log_dates),
)


def apply_all() -> None:
    """Applies every patch; call it once, before any tenant. @raises AttributeError if a release lacks what is patched"""
    for patch in PATCHES:
        patch.apply()
        logger.debug("patched Synapse: %s", patch.name)
