"""Options of homeserver.yaml that a tenant may not set, because the platform sets them or because nobody may in a shard."""

from __future__ import annotations

from .kinds import ANY
from .option import PLATFORM, REFUSED, Row, Section

_FILE = "it names a file or directory of the machine"
_WORKERS = "a tenant is one Synapse without workers"
_FENCE = "the fence that keeps two shards off one database covers exactly one PostgreSQL database"
_GLOBAL = "it is kept once per process, so the last tenant to start would decide for all"
_CACHES = "cache entries of all tenants are expired from one list"
_PROCESS = "it is about the process, which is the shard's"
_LIBPQ = "libpq would read a file, use a socket, or connect elsewhere than the options beside it say"


def _rows(why: str, *paths: str) -> dict[str, Row]:
    return dict.fromkeys(paths, (ANY, why))


def _instead(key: str) -> str:
    return f"{_FILE}; give the content as synapse_shards.{key}"


_PLATFORM = Section(
    "The platform's",
    PLATFORM,
    "the platform sets it",
    {
        **_rows("it is the tenant's identity and is given when the tenant is created", "server_name"),
        **_rows(
            "the shard gives every tenant its own listener",
            "listeners",
            "bind_port",
            "bind_host",
            "unsecure_port",
            "no_tls",
            "gzip_responses",
        ),
        **_rows("logging belongs to the shard and would change for all its tenants", "log_config", "log_file", "no_redirect_stdio"),
        **_rows("garbage collection is of the whole process", "gc_thresholds", "gc_min_interval"),
        **_rows(_GLOBAL, "use_frozen_dicts"),
        **_rows(_PROCESS, "daemonize", "pid_file", "print_pidfile", "soft_file_limit"),
        **_rows(
            "metrics of the process hold those of all tenants; the shard serves them", "enable_metrics", "metrics_port", "metrics_bind_host"
        ),
        **_rows("the platform keeps the tenant's key; give one of your own inline, as signing_key", "signing_key_path"),
        **_rows("media are in a directory or bucket that the platform gives to the tenant", "media_store_path"),
        **_rows("background updates share the processor with all tenants", "background_updates", "task_scheduler"),
        **_rows("outgoing connections are the platform's, with its refused networks", "http_proxy", "https_proxy", "no_proxy_hosts"),
    },
    off={"no_tls": (True,), "no_redirect_stdio": (True,)},
)

_REFUSED = Section(
    "Refused",
    REFUSED,
    "it cannot be used in a shard",
    {
        **_rows("it gives a Python prompt in the process, with every tenant in reach", "manhole", "manhole_settings"),
        **_rows(_GLOBAL, "sentry", "opentracing", "caches.track_memory_usage"),
        **_rows(_CACHES, "caches.expire_caches", "caches.cache_entry_ttl", "caches.expiry_time"),
        **_rows("it goes by the memory of the whole process", "caches.cache_autotuning"),
        **_rows(
            _WORKERS,
            "replication_torture_level",
            "redis",
            "instance_map",
            "stream_writers",
            "run_background_tasks_on",
            "start_pushers",
            "pusher_instances",
            "send_federation",
            "federation_sender_instances",
            "media_instance_running_background_jobs",
            "notify_appservices_from_worker",
            "update_user_directory_from_worker",
            "outbound_federation_restricted_to",
            "auto_accept_invites.worker_to_run_on",
            *(
                f"worker_{name}"
                for name in (
                    "app",
                    "name",
                    "listeners",
                    "daemonize",
                    "pid_file",
                    "log_config",
                    "manhole",
                    "main_http_uri",
                    "replication_host",
                    "replication_port",
                    "replication_http_port",
                    "replication_http_tls",
                    "replication_secret",
                    "replication_secret_path",
                )
            ),
        ),
        **_rows(_FENCE, "databases", "database_path", "database.data_stores", "database.master"),
        **_rows(
            _LIBPQ,
            *(
                f"database.args.{name}"
                for name in (
                    "dsn",
                    "service",
                    "servicefile",
                    "passfile",
                    "hostaddr",
                    "options",
                    "sslkeylogfile",
                    "sslcert",
                    "sslkey",
                    "sslpassword",
                    "sslcrl",
                    "sslcrldir",
                    "requirepeer",
                    "krbsrvname",
                    "gsslib",
                    "replication",
                    "connection_factory",
                    "cursor_factory",
                    "async",
                )
            ),
        ),
        **_rows(_instead("database_authorities"), "database.args.sslrootcert"),
        **_rows(_instead("app_services"), "app_service_config_files"),
        **_rows(
            _instead("templates"),
            "templates.custom_template_directory",
            "email.template_dir",
            "sso.template_dir",
            "account_validity.template_dir",
        ),
        **_rows(_instead("consent_templates"), "user_consent.template_dir"),
        **_rows(_instead("federation_authorities"), "federation_custom_ca_list"),
        **_rows(
            f"{_FILE}; give the value itself, by the option without `_path` or `_file` in its name",
            "macaroon_secret_key_path",
            "form_secret_path",
            "registration_shared_secret_path",
            "turn_shared_secret_path",
            "recaptcha_public_key_path",
            "recaptcha_private_key_path",
            "matrix_authentication_service.secret_path",
            "oidc_providers[].client_secret_path",
            "oidc_providers[].client_secret_jwt_key.key_file",
            "oidc_config.client_secret_path",
            "oidc_config.client_secret_jwt_key.key_file",
        ),
        **_rows(
            _FILE,
            "tls_certificate_path",
            "tls_private_key_path",
            "key_server_signing_keys_path",
            "backup_media_store_path",
            "synchronous_backup_media_store",
            "oembed.additional_providers",
        ),
        **_rows("pysaml2 reads files, runs programs and fetches addresses that its configuration names", "saml2_config"),
        **_rows("Synapse has replaced it by trusted_key_servers", "perspectives"),
        **_rows(
            "Synapse has replaced it by modules, of which the allowed ones can be named",
            "ldap_config",
            "password_providers",
            "spam_checker",
            "third_party_event_rules",
            "presence.presence_router",
        ),
        **_rows("Synapse has replaced it by matrix_authentication_service", "experimental_features.msc3861"),
        **_rows("it makes the tenant believe any server", "use_insecure_ssl_client_just_for_testing_do_not_use"),
    },
    # Without workers these say what is so anyway.
    off={"start_pushers": (True,), "send_federation": (True,), "run_background_tasks_on": ("master",)},
)

SECTIONS = (_PLATFORM, _REFUSED)
