"""Small configurations that once broke a shard, each the first of its kind; what the shard says to each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from multi_synapse.config import TenantOptions, read_options
from multi_synapse.errors import TenantError
from multi_synapse.options.hosts import further_hosts, hosts_of
from multi_synapse.options.policy import Policy, parse_policy
from multi_synapse.state import Assignment

from .conftest import signing_key
from .shard import Client, Shard, request

pytestmark = pytest.mark.shared_shard

Assign = Callable[..., dict[str, Any]]
BASE: dict[str, Any] = {"public_baseurl": "http://clinic.example/", "database": {"name": "psycopg2", "args": {"host": "db"}}}
ALIAS_BOMB = "\n".join(["k0: &k0 [v, v, v, v, v, v, v, v, v]", *(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 9))])
MERGE_KEYS = """
x-shared: &shared
  database: {name: psycopg2, args: {host: 192.0.2.1, port: 5432, user: someone, password: secret, dbname: tenant_neighbor}}
<<: *shared
"""
SLOW_PATTERN = """
email: {smtp_host: mail.clinic.example, smtp_port: 2525, notif_from: post@clinic.example}
enable_registration: true
enable_registration_without_verification: true
allowed_local_3pids: [{medium: email, pattern: '^((([a-z])+)*)+[A-Z]$'}]
"""


def read(overrides: str, **policy: Any) -> TenantOptions:
    return read_options(Assignment("clinic.example", 1, BASE, overrides, signing_key(), 0, parse_policy(policy) if policy else Policy()))


def refusal(overrides: str, **policy: Any) -> TenantError:
    with pytest.raises(TenantError) as caught:
        read(overrides, **policy)
    return caught.value


def test_alias_bomb_is_refused_in_milliseconds() -> None:
    """The case alias-bomb."""
    begun = time.process_time()
    error = refusal(ALIAS_BOMB)
    assert error.code == "InvalidConfig" and "with what its aliases stand for, at line" in error.message
    assert time.process_time() - begun < 0.5


def test_alias_bomb_leaves_nothing_in_a_shard(shard: Shard, assign: Assign) -> None:
    """The case alias-bomb."""
    before = shard.fewest_threads(1)
    for _ in range(5):
        assert shard.put("bomb", assign("bomb", overrides=ALIAS_BOMB, database="none")).code == "InvalidConfig"
        assert shard.call("POST", "/v1/tenants/bomb/check", assign("bomb", overrides=ALIAS_BOMB, database="none")).code == "InvalidConfig"
    assert shard.tenants() == {}
    assert shard.fewest_threads() <= before + 1


def test_merge_keys_are_read_once_for_all() -> None:
    """The case merge-keys."""
    tenant = read(MERGE_KEYS)
    assert tenant.options["database"]["args"]["dbname"] == "tenant_neighbor"
    assert "x-shared" not in tenant.options
    assert tenant.warnings == ()


def test_merge_keys_are_told_in_the_meaning(shard: Shard, assign: Assign) -> None:
    """The case merge-keys."""
    answer = shard.call("POST", "/v1/tenants/a/check", assign("a", overrides=MERGE_KEYS, database="none"))
    assert answer.status == 200, answer.body
    expected = {"host": "192.0.2.1", "port": 5432, "name": "tenant_neighbor", "user": "someone"}
    assert answer.json["meaning"]["database"] == expected
    assert "secret" not in json.dumps(answer.json)


def test_neighbours_key_is_refused_by_name() -> None:
    """The case neighbours-key."""
    error = refusal("signing_key_path: /data/shards/1.0-0/state/tenants/neighbor/signing.key")
    assert error.code == "OptionNotAllowed" and "the option signing_key_path may not be set" in error.message


def test_no_media_runs_beside_a_tenant_with_media(shard: Shard, assign: Assign) -> None:
    """The case no-media."""
    shard.expect_started("media", assign("media"))
    for epoch in (1, 2):
        state = shard.expect_started("none", assign("none", epoch=epoch, overrides="enable_media_repo: false"))
        Client(state["address"]).register().work()
        shard.delete("none")
    assert request(shard.tenants()["media"]["address"], "GET", "/_matrix/client/versions").status == 200


@pytest.mark.parametrize("text", ["[1, 2", "[1, 2]", "key: value: more"])
def test_not_yaml_is_refused(text: str) -> None:
    """The case not-yaml."""
    assert refusal(text).code == "InvalidConfig"


@pytest.mark.parametrize("host", ["localhost:8008", "neighbor.example", "127.0.0.1", "[::1]", "2130706433", "0x7f.1", "evilclinic.example"])
def test_other_hosts_are_refused_by_name(host: str) -> None:
    """The case other-hosts."""
    error = refusal(f"public_baseurl: http://{host}/")
    assert error.code == "OptionNotAllowed" and "public_baseurl" in error.message


def test_other_hosts_of_ones_own_or_approved_pass() -> None:
    """The case other-hosts."""
    assert read("public_baseurl: https://matrix.clinic.example/").options["public_baseurl"]
    assert read("public_baseurl: https://matrix.other.example/", allowedHosts=["matrix.other.example"]).options
    assert read("public_baseurl: https://a.b.other.example/", allowedHosts=["*.other.example"]).options
    refusal("public_baseurl: https://other.example/", allowedHosts=["*.other.example"])


@pytest.mark.parametrize("host", ["neighbor.example", "evilclinic.example", "example", "a.b.svc"])
def test_further_hosts_of_others_are_refused_by_name(host: str) -> None:
    error = refusal(f"synapse_shards: {{hosts: [chat.clinic.example, {host}]}}")
    assert error.code == "OptionNotAllowed" and f"synapse_shards.hosts may not lead to {host}" in error.message


@pytest.mark.parametrize(
    "hosts", ["x", "{a: 1}", "[5]", "[Chat.clinic.example]", "['chat.clinic.example:8008']", "[127.0.0.1]", "['*.clinic.example']"]
)
def test_further_hosts_that_are_no_names_are_refused_though_an_operator_lets_all_through(hosts: str) -> None:
    for policy in ({}, {"allowedOptions": ["synapse_shards", "synapse_shards.hosts"]}):
        error = refusal(f"synapse_shards: {{hosts: {hosts}}}", **policy)
        assert error.code == "InvalidConfig" and "synapse_shards.hosts" in error.message


def test_further_hosts_lead_to_the_tenant_beside_its_own() -> None:
    given = "synapse_shards: {hosts: [chat.clinic.example, clinic-synapse.clinic.svc.cluster.local]}"
    options = read(given, allowedHosts=["*.clinic.svc.cluster.local"]).options
    found = hosts_of("clinic.example", "https://matrix.clinic.example/", further_hosts(options))
    assert found == ["clinic.example", "matrix.clinic.example", "chat.clinic.example", "clinic-synapse.clinic.svc.cluster.local"]


def test_pixel_limit_of_a_neighbour_holds() -> None:
    """The case pixel-limit."""
    error = refusal("max_image_pixels: 100G")
    assert "max_image_pixels" in error.message and "32M" in error.message
    assert read("max_image_pixels: 16M").options == {"max_image_pixels": "16M"}


def test_refused_is_refused_and_its_off_forms_pass() -> None:
    """The case refused."""
    assert "daemonize" in refusal("daemonize: true").message
    off = """
    redis: {enabled: false}
    opentracing: {enabled: false}
    worker_app: null
    enable_metrics: false
    daemonize: false
    listeners: []
    manhole: null
    app_service_config_files: []
    start_pushers: true
    server_name: clinic.example
    """
    tenant = read(off)
    assert tenant.options == {} and tenant.warnings == ()


def test_slow_pattern_takes_linear_time(shard: Shard, assign: Assign) -> None:
    """The case slow-pattern."""
    state = shard.expect_started("slow", assign("slow", overrides=SLOW_PATTERN))
    body = {"client_secret": "s", "email": "a" * 60 + "@clinic.example", "send_attempt": 1}
    answer = request(state["address"], "POST", "/_matrix/client/v3/register/email/requestToken", body)
    assert answer.json["errcode"] == "M_THREEPID_DENIED"
    # An expression that is not linear never ends, and the watchdog would have ended the shard.
    assert shard.call("GET", "/v1/shard").json["stalls"] == []


def test_slow_pattern_that_is_not_linear_is_refused() -> None:
    """The case slow-pattern."""
    assert "RE2" in refusal("allowed_local_3pids: [{medium: email, pattern: '(a)\\1'}]").message


def test_template_read_is_refused_by_name() -> None:
    """The case template-read."""
    error = refusal("templates: {custom_template_directory: /data}\naccount_validity: {invalid_token_html_path: postgres.password}")
    assert error.code == "OptionNotAllowed" and "the option templates" in error.message
    assert "account_validity" in refusal("account_validity: {invalid_token_html_path: ../postgres.password}").message


def test_typo_is_a_warning_that_names_the_nearest() -> None:
    """The case typo."""
    tenant = read("max_upload_sized: 5M")
    assert tenant.warnings == ("the option max_upload_sized is unknown and has no effect; did you mean max_upload_size?",)
    assert tenant.options == {}
    assert "email.smtp_hots" in read("email: {smtp_hots: x}").warnings[0]


def test_underscore_port_is_a_number() -> None:
    """The case underscore-port."""
    text = "database: {name: psycopg2, args: {host: 192.0.2.1, port: 5_432, user: someone, password: secret, dbname: own}}"
    assert read(text).options["database"]["args"]["port"] == 5432


def test_wrong_types_are_warnings(shard: Shard, assign: Assign) -> None:
    """The case wrong-types."""
    text = "max_upload_size: -5\nturn_uris: 5\n"
    warnings = read(text).warnings
    assert warnings == (
        "the option max_upload_size is negative, expected a size such as 50M",
        "the option turn_uris is a number, expected a list of texts",
    )
    assert tuple(shard.expect_started("wrong", assign("wrong", overrides=text))["warnings"]) == warnings
    assert tuple(shard.call("POST", "/v1/tenants/wrong/check", assign("wrong", overrides=text)).json["warnings"]) == warnings
