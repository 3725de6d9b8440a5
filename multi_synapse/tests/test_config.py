from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from multi_synapse.config import check_signing_key, secret_values
from multi_synapse.errors import TenantError, describe
from multi_synapse.options import TABLE
from multi_synapse.options.check import check_options
from multi_synapse.options.option import TENANT, find, split, walk
from multi_synapse.options.policy import Policy
from multi_synapse.options.reading import parse_mapping
from multi_synapse.patches.process import _getaddrinfo, is_localhost
from multi_synapse.state import Assignment, StateDirectory, is_tenant_name

from .conftest import signing_key


def refusal(text: str, policy: Policy | None = None) -> TenantError:
    with pytest.raises(TenantError) as caught:
        check(text, policy)
    return caught.value


def check(text: str, policy: Policy | None = None) -> dict[str, Any]:
    return check_options(parse_mapping(text), "a.example", {}, policy or Policy()).options


OTHERS = [path for path, option in walk(TABLE) if option.owner != TENANT and "[]" not in path]


def yaml_of(path: str, value: str) -> str:
    *parents, last = split(path)
    extra = "name: psycopg2, " if parents == ["database"] else ""
    return "".join(f"{{{key}: " for key in parents) + f"{{{extra}{last}: {value}}}" + "}" * len(parents)


@pytest.mark.parametrize("option", OTHERS)
def test_an_option_that_is_not_the_tenants_is_refused_by_name(option: str) -> None:
    for value in ("1", "[x]", "{a: b}", "text"):
        error = refusal(yaml_of(option, value))
        assert error.code == "OptionNotAllowed"
        assert f"the option {option} may not be set" in error.message
    assert find(TABLE, tuple(split(option))) is not None


@pytest.mark.parametrize("option", OTHERS)
def test_an_option_that_is_not_the_tenants_passes_when_an_operator_allows_it(option: str) -> None:
    policy = Policy(allowed_options=frozenset({option, "database", "public_baseurl"}))
    assert check(yaml_of(option, "1"), policy) != {}


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("worker_app: synapse.app.generic_worker", "worker_app"),
        ("database: {name: sqlite3, args: {database: /tmp/x}}", "database.name"),
        ("database: {args: {host: db}}", "database.name"),
        ("database: {name: psycopg2, args: {host: db}, data_stores: [main]}", "database.data_stores"),
        ("database: {name: psycopg2, args: {host: /var/run/postgresql}}", "database.args.host"),
        ("database: {name: psycopg2, args: {host: '@socket'}}", "database.args.host"),
        ("database: {name: psycopg2, args: {host: 'db,/tmp'}}", "database.args.host"),
        ("database: {name: psycopg2, args: {dbname: x}}", "database.args.host"),
        ("database: {name: psycopg2, args: {host: db, dbname: 'x host=/tmp'}}", "database.args.dbname"),
        ("database: {name: psycopg2, args: {host: db, dbname: 'postgresql://x/y'}}", "database.args.dbname"),
        ("database: {name: psycopg2, args: {host: db, port: '5432,5433'}}", "database.args.port"),
        ("database: {name: psycopg2, args: {host: db, cp_max: 1000}}", "database.args.cp_max"),
        ("modules: [{module: evil.Module}]", "modules[0].module"),
        ("modules: [{module: synapse.events.auto_accept_invites.InviteAutoAccepter}]", "modules[0].module"),
        ("media_storage_providers: [{module: evil.Provider}]", "media_storage_providers[0].module"),
        ("media_storage_providers: [{module: file_system, config: {directory: /}}]", "media_storage_providers[0].module"),
        (
            "media_storage_providers: [{module: s3_storage_provider.S3StorageProviderBackend, config: {bucket: b}}]",
            "media_storage_providers[0].config.access_key_id",
        ),
        ("oidc_providers: [{user_mapping_provider: {module: evil.Mapper}}]", "oidc_providers[0].user_mapping_provider.module"),
        ("oidc_providers: [{client_secret_path: /etc/passwd}]", "oidc_providers[0].client_secret_path"),
        ("web_client_location: /etc", "web_client_location"),
        ("bcrypt_rounds: 31", "bcrypt_rounds"),
        ("bcrypt_rounds: '31'", "bcrypt_rounds"),
        ("rc_message: {per_second: 1000}", "rc_message.per_second"),
        ("rc_message: {per_second: .inf}", "rc_message.per_second"),
        ("rc_message: {per_second: .nan}", "rc_message.per_second"),
        ("rc_message: {per_second: '1e9'}", "rc_message.per_second"),
        ("rc_message: [1]", "rc_message"),
        ("rc_login: {address: {burst_count: 1000}}", "rc_login.address.burst_count"),
        ("max_upload_size: 1T", "max_upload_size"),
        ("caches: {per_cache_factors: {x: 100}}", "caches.per_cache_factors.x"),
        ("retention: {purge_jobs: [{interval: 1s}]}", "retention.purge_jobs[0].interval"),
    ],
)
def test_ways_around_the_table_are_refused(text: str, option: str) -> None:
    error = refusal(text)
    assert error.code in ("OptionNotAllowed", "InvalidConfig")
    assert f"the option {option} " in error.message


def test_ordinary_options_pass() -> None:
    text = """
        enable_registration: true
        rc_message: {per_second: 0.1, burst_count: 5}
        caches: {global_factor: 2, per_cache_factors: {get_users_in_room: 4}}
        database: {name: psycopg2, args: {host: db, dbname: x, cp_min: 1, cp_max: 5}}
        media_storage_providers:
          - module: s3_storage_provider.S3StorageProviderBackend
            config: {bucket: b, access_key_id: a, secret_access_key: s, endpoint_url: https://s3.example}
        modules: [{module: good.Module, config: {anything: [at, all]}}]
        experimental_features: {msc9999_enabled: true}
    """
    assert check(text, Policy(allowed_modules=frozenset({"good.Module"}))) == parse_mapping(text)


def test_a_tenant_may_have_what_the_operator_set_for_all() -> None:
    policy = Policy(tenant_defaults={"rc_message": {"per_second": 100, "burst_count": 100}})
    assert check("rc_message: {per_second: 100}", policy)
    assert "rc_message.per_second" in refusal("rc_message: {per_second: 101}", policy).message


def test_signing_keys_are_checked_without_quoting_them() -> None:
    check_signing_key(signing_key(), {})
    for bad in ("", "\n", "ed25519 a_x not/base64!", "rsa a_x AAAA", "secret-looking-nonsense"):
        with pytest.raises(TenantError) as caught:
            check_signing_key(bad, {})
        assert caught.value.code == "SigningKeyInvalid"
        assert "secret-looking" not in caught.value.message
    check_signing_key("", {"signing_key": signing_key()})


def test_secrets_are_left_out_of_messages() -> None:
    secrets = secret_values({"database": {"args": {"password": "p4ssw0rd"}}, "form_secret": "f0rm", "signing_key_path": "/path"})
    assert secrets == {"p4ssw0rd", "f0rm"}
    assert "p4ssw0rd" not in describe(ValueError("bad value 'p4ssw0rd'"), secrets).message


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "../x", "a/b", "a" * 64, "ä", "a\n"])
def test_names_that_are_no_labels_are_refused(name: str) -> None:
    assert not is_tenant_name(name)


@pytest.mark.parametrize(
    "change",
    [{"epoch": 0}, {"epoch": "1"}, {"epoch": True}, {"epoch": 1.5}, {"base": []}, {"overrides": None}, {"extra": 1}, {"serverName": ""}],
)
def test_malformed_assignments_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(TenantError) as caught:
        Assignment.parse({"serverName": "a", "epoch": 1, "base": {}, "overrides": "", "signingKey": "", **change})
    assert caught.value.code == "InvalidConfig"


def test_state_is_private_and_survives_a_restart(folder: Path) -> None:
    state = StateDirectory(folder / "state")
    assignment = Assignment("a.example", 3, {"server_name": "a.example"}, "x: 1\n", "key")
    state.write_tenant_files("a", assignment.overrides, assignment.signing_key)
    state.write_tenant_files("half", "", "")
    state.assign("a", assignment, 4711)
    assert StateDirectory(folder / "state").assignments() == [("a", assignment, 4711)]
    assert not state.tenant_directory("half").exists()
    for path in (folder / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (folder / "state").stat().st_mode & 0o777 == 0o700
    state.forget("a")
    assert state.assignments() == []


def test_names_below_localhost_are_loopback() -> None:
    assert [item[4] for item in _getaddrinfo("clinic-a.localhost", 8448)] == [("127.0.0.1", 8448)]
    assert [item[4][:2] for item in _getaddrinfo(b"x.localhost", 1, socket.AF_INET6)] == [("::1", 1)]


def test_names_of_this_machine() -> None:
    assert is_localhost("clinic-a.localhost")
    assert is_localhost("_matrix-fed._tcp.Clinic-A.localhost.")
    assert not is_localhost("localhost.example")
    assert not is_localhost("notlocalhost")
