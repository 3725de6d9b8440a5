"""Every change this runtime makes to Synapse, by name. Each says why it is needed, for which releases it was tested, and what it relies on.

Synapse is made for composing several homeservers into one process (`create_homeserver`, `setup`, `start(freeze=False)`,
`shutdown`); these close what that leaves open. A patch that does not find what it changes, with the parameters it knows, fails at
once, when the process starts: a new release must be looked at, not run by luck.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from .. import docstrings, waiting
from ..release import TESTED, UnsupportedRelease, installed_release, is_within
from . import (
    database,
    gateway,
    http,
    images,
    network,
    patterns,
    process,
    quotas,
    rust,
    s3,
    s3_faults,
    series,
    signatures,
    start,
    stops,
    templates,
    tenants,
    tls,
    watch,
)

logger = logging.getLogger(__name__)

#: When a patch is applied: with all others when the process starts, before anything is imported, once the process is a certain shard's
#: (several are forked from one that has the others), or once a tenant needs it.
AT_START, BEFORE_IMPORTS, IN_SHARD, ON_DEMAND = "at start", "before imports", "in shard", "on demand"


@dataclass(frozen=True)
class Patch:
    name: str
    why: str
    apply: Callable[[], None]
    #: Parameters of functions, by `module:qualified.name`, that it changes or calls.
    relies_on: Mapping[str, str] = field(default_factory=dict)
    #: Oldest and newest Synapse release it was tested with.
    releases: tuple[str, str] = TESTED
    when: str = AT_START


PATCHES: tuple[Patch, ...] = (
    Patch(
        "docstrings",
        "docstrings of functions take 3 MiB in each shard, and are not read there",
        docstrings.leave_out,
        when=BEFORE_IMPORTS,
    ),
    Patch(
        "database-waits",
        "psycopg2 waits without end in a thread, and stalls every tenant on the reactor",
        waiting.install,
    ),
    Patch(
        "logging",
        "each tenant adds a root handler, or reconfigures logging of the whole process",
        process.own_logging,
        {
            "synapse.config.logger:_setup_stdlib_logging": "config, log_config_path",
            "synapse.config.logger:_reload_logging_config": "log_config_path",
        },
    ),
    Patch(
        "systemd",
        "each tenant tells systemd that the process is ready, and leaves a trigger behind",
        process.no_systemd_notices,
        {"synapse.app._base:setup_sdnotify": "hs"},
    ),
    Patch(
        "resolver",
        "each tenant makes a resolver pool of 5 threads and never ends it",
        process.share_resolver,
        {"synapse.util.gai_resolver:GAIResolver.__init__": "self, reactor, getThreadPool, getaddrinfo"},
    ),
    Patch(
        "localhost",
        "names under .localhost are loopback (RFC 6761), which DNS need not know",
        process.answer_localhost_srv,
        {"synapse.http.federation.srv_resolver:SrvResolver.resolve_service": "self, service_name"},
    ),
    Patch(
        "threads",
        "each tenant has its own database threads and joins them on the reactor when it stops",
        database.share_database_threads,
        {"synapse.storage.database:make_pool": "reactor, db_config, engine, server_name"},
    ),
    Patch(
        "fence",
        "each new database connection must prove that this process owns the database",
        database.check_fence_on_connect,
        {"synapse.storage.engines.postgres:PostgresEngine.on_new_connection": "self, db_conn"},
    ),
    Patch(
        "rows",
        "nothing says which tenant made the process hold the rows that it holds",
        database.count_rows,
        {"synapse.storage.database:LoggingTransaction._do_execute": "self, func, sql, *args, **kwargs"},
    ),
    Patch(
        "connect",
        "set-up connects on the reactor: a database that never answers stalls every tenant",
        database.connect_off_the_reactor,
        {"synapse.storage.databases:make_conn": "db_config, engine, default_txn_name, server_name"},
    ),
    Patch(
        "persisting",
        "after the database went away while a message was stored, its room may take none until the next start (until 1.163)",
        database.persist_again_after_a_failure,
        {
            "synapse.storage.databases.state.deletion:StateDeletionDataStore._mark_state_groups_as_persisting_txn": (
                "self, txn, state_groups"
            ),
            "synapse.storage.database:DatabasePool.simple_delete_many_txn": "txn, table, column, values, keyvalues",
        },
    ),
    Patch(
        "lists-of-caches",
        "a lookup of many keys that fails is answered as if there were nothing",
        database.fail_lists_with_their_lookup,
        {"synapse.util.caches.deferred_cache:CacheMultipleEntries.error_bulk": "self, cache, keys, failure"},
    ),
    Patch(
        "caches",
        "cache factors are kept once per process: the last tenant's would apply to all",
        tenants.size_caches_per_tenant,
        {
            "synapse.util.caches:add_resizable_cache": "cache_name, cache_resize_callback",
            "synapse.util.caches:register_cache": (
                "cache_type, cache_name, cache, server_name, collect_callback, resizable, resize_callback"
            ),
            "synapse.config.cache:CacheConfig.resize_all_caches": "self",
            "synapse.config.cache:_canonicalise_cache_name": "cache_name",
        },
    ),
    Patch(
        "passwords",
        "bcrypt shares a pool with JSON encoding: logins at one tenant hold up all others",
        tenants.limit_password_hashing,
        {
            "synapse.handlers.auth:AuthHandler.hash": "self, password",
            "synapse.handlers.auth:AuthHandler.validate_hash": "self, password, stored_hash",
        },
    ),
    Patch(
        "media-servlets",
        "the first tenant with media adds its servlets to a table of the process: a tenant without media cannot start after it",
        tenants.register_media_servlets_per_tenant,
        {"synapse.rest:ClientRestResource.register_servlets": "client_resource, hs, servlet_groups"},
    ),
    Patch("room-versions", "an experimental room version of one tenant would be known to all", tenants.refuse_room_versions_for_all),
    Patch("templates", "each tenant compiles the same 19 templates again, about 40 ms", start.share_compiled_templates),
    Patch(
        "pages",
        "each tenant keeps the same two rendered pages, 48 KiB",
        start.share_rendered_pages,
        {"synapse.config.sso:SSOConfig.read_config": "self, config, **kwargs"},
    ),
    Patch(
        "schemas",
        "each tenant checks the same constant schemas against the meta-schema again",
        start.share_validators,
        {"jsonschema:validate": "instance, schema, cls, *args, **kwargs"},
    ),
    Patch("yaml", "YAML is read by the slow pure-Python parser", start.use_fast_yaml, {"yaml:safe_load": "stream"}),
    Patch(
        "servlets",
        "making 330 servlets keeps the reactor for 30 ms",
        start.register_servlets_in_pieces,
        {"synapse.http.server:JsonResource.register_paths": "self, method, path_patterns, callback, servlet_classname"},
    ),
    Patch("tls", "each tenant loads every certificate authority of the platform twice: 1.7 MiB, 20 ms", tls.share_tls_contexts),
    Patch(
        "series",
        "each tenant has 340 children of metrics, of which a shard exports few",
        series.keep_read_families_only,
        {"prometheus_client.metrics:MetricWrapperBase.labels": "self, *labelvalues, **labelkwargs"},
    ),
    Patch(
        "patterns",
        "tenants' regular expressions and globs can take forever in Python's engine",
        patterns.use_linear_patterns,
        {
            "matrix_common.regex:glob_to_regex": "glob, word_boundary, ignore_case",
            "synapse.util.threepids:check_3pid_allowed": "hs, medium, address, registration",
        },
    ),
    Patch("sandbox", "templates of tenants run in the process", templates.use_sandbox),
    Patch(
        "delegated-authentication",
        "a client in Rust connects anywhere",
        network.use_tenants_client_for_delegated_authentication,
        {"synapse.api.auth.mas:MasDelegatedAuth.__init__": "self, hs"},
    ),
    Patch("tokio", "each tenant has four threads for answers that are made in Rust", rust.share_tokio_runtime),
    Patch(
        "long-polls",
        "a draining tenant must answer waiting requests now, and not wait in later ones",
        http.make_long_polls_drainable,
        {"synapse.notifier:Notifier.wait_for_events": "self, user_id, timeout, callback, room_ids, from_token"},
    ),
    Patch(
        "users",
        "Synapse has no bound for how many users there are",
        quotas.count_users_at_registration,
        {
            "synapse.handlers.register:RegistrationHandler.register_with_store": (
                "self, user_id, password_hash, was_guest, make_guest, appservice_id, create_profile_with_displayname, admin, user_type, "
                "address, shadow_banned, approved"
            )
        },
    ),
    Patch(
        "activated-users",
        "an account that is activated again is one more, and Synapse has no bound for that either",
        quotas.count_users_at_activation,
        {"synapse.handlers.deactivate_account:DeactivateAccountHandler.activate_account": "self, user_id"},
    ),
    Patch(
        "support-users",
        "users of the type support are active without being counted, and an administrator may make anybody one",
        quotas.count_support_users,
        {"synapse.storage.databases.main.registration:RegistrationWorkerStore.is_support_user_txn": "self, txn, user_id"},
    ),
    Patch(
        "images",
        "images are decoded in the process of all tenants, without a bound, and with the last tenant's limit",
        images.decode_images_apart,
        {
            "synapse.media.thumbnailer:Thumbnailer.set_limits": "max_image_pixels",
            "synapse.media.media_repository:MediaRepository._generate_thumbnails": (
                "self, server_name, media_id, file_id, media_type, url_cache"
            ),
        },
    ),
    Patch(
        "tenant-at-work",
        "a process that stands still must be known to stand in whose code",
        watch.note_tenant_at_work,
        {"synapse.logging.context:set_current_context": "context"},
        when=IN_SHARD,
    ),
    Patch(
        "processes",
        "a stop must know what is in work, and what of it to wait for",
        stops.note_background_processes,
        {"synapse.server:HomeServer.run_as_background_process": "self, desc, func, *args, **kwargs"},
    ),
    Patch(
        "services-in-flight",
        "what is on its way to an application service is in local variables: a stop would lose it",
        stops.note_transactions_to_services,
        {
            "synapse.appservice.scheduler:_TransactionController.send": (
                "self, service, events, ephemeral, to_device_messages, one_time_keys_count, unused_fallback_keys, device_list_summary"
            ),
            "synapse.appservice.scheduler:_TransactionController.on_recovered": "self, recoverer",
            "synapse.appservice.scheduler:_TransactionController.force_retry": "self, service",
            "synapse.appservice.scheduler:ApplicationServiceScheduler.enqueue_for_appservice": (
                "self, appservice, events, ephemeral, to_device_messages, device_list_summary"
            ),
            "synapse.appservice.scheduler:ApplicationServiceScheduler.start": "self",
            "synapse.handlers.appservice:ApplicationServicesHandler.notify_interested_services": "self, max_token",
        },
    ),
    Patch(
        "servers-in-flight",
        "what is on its way to another server is in local variables: a stop would lose it",
        stops.note_transactions_to_servers,
        {"synapse.federation.sender.transaction_manager:TransactionManager.send_new_transaction": "self, destination, pdus, edus"},
    ),
    Patch(
        "queues-of-servers",
        "a start must put back what a stop has kept",
        stops.take_up_queues_of_servers,
        {
            "synapse.federation.sender:FederationSender._wake_destinations_needing_catchup": "self",
            "synapse.federation.sender:FederationSender._get_per_destination_queue": "self, destination",
            "synapse.federation.sender.per_destination_queue:PerDestinationQueue.attempt_new_transaction": "self",
            "synapse.federation.sender.per_destination_queue:PerDestinationQueue.mark_new_data": "self",
            "synapse.federation.federation_server:FederationServer._handle_old_staged_events": "self",
        },
    ),
    Patch(
        "log-dates",
        "each listener formats the time once a second for a log that is never written",
        http.no_log_dates,
        {"synapse.http.site:SynapseSite._updateLogDateTime": "self"},
    ),
    Patch(
        "s3",
        "each tenant with media in S3 has a pool of 40 threads, a trigger that outlives it, and 15 MiB of botocore's data",
        s3.share_between_tenants,
        {"s3_storage_provider:S3StorageProviderBackend.__init__": "self, hs, config"},
        when=ON_DEMAND,
    ),
    Patch(
        "ports-of-workers",
        "a worker does not note what it listens on, so a stop would not know of its requests",
        http.note_ports_of_workers,
        {
            "synapse.app._base:listen_http": (
                "hs, listener_config, root_resource, version_string, max_request_body_size, context_factory, reactor"
            )
        },
        when=ON_DEMAND,
    ),
    Patch(
        "s3-faults",
        "an S3 server that is dead, silent or refuses leaves requests without an answer",
        s3_faults.apply,
        {
            "s3_storage_provider:S3StorageProviderBackend.store_file": "self, path, file_info",
            "s3_storage_provider:S3StorageProviderBackend.fetch": "self, path, file_info",
            "s3_storage_provider:s3_download_task": "s3_client, bucket, key, extra_args, deferred",
            "s3_storage_provider:_S3Responder._error": "self, failure",
            "synapse.media.media_storage:MediaStorage.ensure_media_is_in_local_cache": "self, file_info",
        },
        when=ON_DEMAND,
    ),
    Patch(
        "gateways-only",
        "a tenant's listener believes what only a gateway may say",
        gateway.answer_gateways_only,
        {
            "synapse.http.site:SynapseRequest.gotLength": "self, length",
            "synapse.http.site:SynapseRequest.requestReceived": "self, command, path, version",
            "synapse.http.site:SynapseRequest.handleContentChunk": "self, data",
        },
    ),
    Patch(
        "database-away",
        "a request that fails because the database is away is a 500, which clients and servers take for a fault",
        gateway.tell_when_the_database_is_away,
        {
            "synapse.http.server:return_json_error": "f, request, config",
            "synapse.http.server:return_html_error": "f, request, error_template",
        },
    ),
)

_BY_NAME = {patch.name: patch for patch in PATCHES}
_allowed: frozenset[str] = frozenset()


def allow(releases: Collection[str]) -> None:
    """Releases that no patch was tested with, and are to be patched all the same."""
    global _allowed
    _allowed = frozenset(releases)


def apply_all(when: str = AT_START) -> None:
    """Applies every patch of that time; call it once, before any tenant. @raises UnsupportedRelease, signatures.ChangedUpstream"""
    for patch in PATCHES:
        if patch.when == when:
            apply(patch.name)


def apply(name: str) -> None:
    """Applies one patch. @raises UnsupportedRelease, signatures.ChangedUpstream"""
    patch = _BY_NAME[name]
    version = installed_release()
    if not is_within(version, *patch.releases) and version not in _allowed:
        raise UnsupportedRelease(f"the patch {name} was tested with Synapse {' to '.join(patch.releases)}, and this is {version}")
    signatures.check(name, patch.relies_on)
    patch.apply()
    logger.debug("patched: %s", name)
