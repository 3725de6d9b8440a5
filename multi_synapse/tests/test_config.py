from __future__ import annotations

import socket
from pathlib import Path

import pytest

from multi_synapse.config import (
    REFUSED_CACHE_OPTIONS,
    REFUSED_OPTIONS,
    check_overrides,
    check_signing_key,
    parse_overrides,
    secret_values,
)
from multi_synapse.errors import TenantError, describe
from multi_synapse.patches.process import _getaddrinfo, is_localhost
from multi_synapse.state import Assignment, StateDirectory, is_tenant_name

from .conftest import signing_key


def refusal(text: str, modules: frozenset[str] = frozenset()) -> TenantError:
    with pytest.raises(TenantError) as caught:
        check_overrides(parse_overrides(text), modules)
    return caught.value


@pytest.mark.parametrize("option", sorted(REFUSED_OPTIONS))
def test_process_wide_options_are_refused_by_name(option: str) -> None:
    # Prevents: one tenant's configuration changes the whole process.
    error = refusal(f"{option}: 1")
    assert error.code == "OptionNotAllowed"
    assert f"the option {option} may not be set" in error.message


@pytest.mark.parametrize("option", sorted(REFUSED_CACHE_OPTIONS))
def test_process_wide_cache_options_are_refused(option: str) -> None:
    # Prevents: one tenant's cache settings expire the caches of the others.
    assert f"caches.{option}" in refusal(f"caches: {{{option}: 1}}").message


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("worker_app: synapse.app.generic_worker", "worker_app"),
        ("worker_anything_new: 1", "worker_anything_new"),
        ("database: {name: sqlite3, args: {database: /tmp/x}}", "database.name"),
        ("database: {name: psycopg2, args: {}, data_stores: [main]}", "database.data_stores"),
        ("modules: [{module: evil.Module}]", "modules[0].module"),
        ("media_storage_providers: [{module: evil.Provider}]", "media_storage_providers[0].module"),
        ("oidc_providers: [{user_mapping_provider: {module: evil.Mapper}}]", "oidc_providers[0].user_mapping_provider.module"),
    ],
)
def test_other_ways_into_the_process_are_refused(text: str, option: str) -> None:
    # Prevents: code or a database without a fence gets in through an option that is otherwise allowed.
    error = refusal(text)
    assert error.code == "OptionNotAllowed"
    assert option in error.message


def test_ordinary_options_pass() -> None:
    # Prevents: tenants cannot use Synapse's own options.
    text = """
        enable_registration: true
        caches: {global_factor: 2, per_cache_factors: {get_users_in_room: 4}}
        database: {name: psycopg2, args: {host: db, dbname: x}}
        media_storage_providers: [{module: s3_storage_provider.S3StorageProviderBackend, config: {bucket: b}}]
        modules: [{module: good.Module}]
    """
    check_overrides(parse_overrides(text), frozenset({"good.Module"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3"),
        ("a: 1\n  b: 2", "line 2"),
        ("- a\n- b", "is a list (line 1), expected a mapping"),
        ("just text", "is a string"),
        ("5: x", "the key 5"),
        ("a: !!python/object:os.system x", "line 1"),
    ],
)
def test_broken_yaml_names_the_line(text: str, expected: str) -> None:
    # Prevents: a user who broke the YAML gets no hint where.
    with pytest.raises(TenantError) as caught:
        parse_overrides(text)
    assert caught.value.code == "InvalidConfig"
    assert expected in caught.value.message


def test_broken_yaml_does_not_show_its_lines() -> None:
    # Prevents: a secret beside a YAML mistake ends in a status that everybody can read.
    with pytest.raises(TenantError) as caught:
        parse_overrides("macaroon_secret_key: [hunter2-hunter2\nb: 1: 2")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_no_overrides(text: str) -> None:
    # Prevents: a tenant without a configuration of its own is refused.
    assert parse_overrides(text) == {}


def test_signing_keys(folder: Path) -> None:
    # Prevents: a tenant starts with no key, or its error quotes the key.
    check_signing_key(signing_key(), {})
    for bad in ("", "\n", "ed25519 a_x not/base64!", "rsa a_x AAAA", "secret-looking-nonsense"):
        with pytest.raises(TenantError) as caught:
            check_signing_key(bad, {})
        assert caught.value.code == "SigningKeyInvalid"
        assert "secret-looking" not in caught.value.message
    with pytest.raises(TenantError, match="does not exist"):
        check_signing_key(signing_key(), {"signing_key_path": str(folder / "none")})
    (folder / "key").write_text(signing_key())
    check_signing_key("", {"signing_key_path": str(folder / "key")})


def test_secrets_are_blanked_out() -> None:
    # Prevents: Synapse quotes a value it does not like, and the value is a secret.
    secrets = secret_values({"database": {"args": {"password": "p4ssw0rd"}}, "form_secret": "f0rm", "signing_key_path": "/path"})
    assert secrets == {"p4ssw0rd", "f0rm"}
    assert "p4ssw0rd" not in describe(ValueError("bad value 'p4ssw0rd'"), secrets).message


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "../x", "a/b", "a" * 64, "ä", "a\n"])
def test_names_that_are_no_labels(name: str) -> None:
    # Prevents: a name leads out of the state directory.
    assert not is_tenant_name(name)


@pytest.mark.parametrize(
    "change",
    [{"epoch": 0}, {"epoch": "1"}, {"epoch": True}, {"epoch": 1.5}, {"base": []}, {"overrides": None}, {"extra": 1}, {"serverName": ""}],
)
def test_malformed_assignments(change: dict[str, object]) -> None:
    # Prevents: a mistake of the controller's shows as a stack trace far from its cause.
    with pytest.raises(TenantError) as caught:
        Assignment.parse({"serverName": "a", "epoch": 1, "base": {}, "overrides": "", "signingKey": "", **change})
    assert caught.value.code == "InvalidConfig"


def test_state_is_private_and_survives(folder: Path) -> None:
    # Prevents: other users of the machine read keys and passwords; a restart loses assignments or trips over leftovers.
    state = StateDirectory(folder / "state")
    assignment = Assignment("a.example", 3, {"server_name": "a.example"}, "x: 1\n", "key")
    state.write_tenant_files("a", assignment.base, assignment.overrides, assignment.signing_key)
    state.write_tenant_files("half", {}, "", "")
    state.assign("a", assignment, 4711)
    assert StateDirectory(folder / "state").assignments() == [("a", assignment, 4711)]
    assert not state.tenant_directory("half").exists()
    for path in (folder / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (folder / "state").stat().st_mode & 0o777 == 0o700
    state.forget("a")
    assert state.assignments() == []


def test_names_below_localhost_are_loopback() -> None:
    # Prevents: a neighbour's name leads nowhere on machines whose resolver does not know `.localhost`.
    assert [item[4] for item in _getaddrinfo("clinic-a.localhost", 8448)] == [("127.0.0.1", 8448)]
    assert [item[4][:2] for item in _getaddrinfo(b"x.localhost", 1, socket.AF_INET6)] == [("::1", 1)]


def test_names_of_this_machine() -> None:
    # Prevents: federation between neighbours asks DNS for names that DNS does not have.
    assert is_localhost("clinic-a.localhost")
    assert is_localhost("_matrix-fed._tcp.Clinic-A.localhost.")
    assert not is_localhost("localhost.example")
    assert not is_localhost("notlocalhost")
