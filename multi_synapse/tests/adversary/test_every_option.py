"""A hostile owner goes through every option of the table: none opens a file, imports a module, takes forever or has no bound."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from multi_synapse.errors import TenantError
from multi_synapse.options import TABLE
from multi_synapse.options.check import check_options
from multi_synapse.options.kinds import HOST, MODULE, PATTERN, PREVIEW_PATTERN, URL
from multi_synapse.options.option import EACH, ITEM, TENANT, Option, split, walk
from multi_synapse.options.policy import Policy
from multi_synapse.patches.patterns import _compiled

from ..shard import CHECKOUT

TENANTS = {path: option for path, option in walk(TABLE) if option.owner == TENANT}
LEAVES = {path: option for path, option in TENANTS.items() if not option.keys}

#: Numbers without an upper bound: what they say is compared or shown, and nothing is done as often or kept as long.
WITHOUT_BOUND = {
    "max_mau_value",
    "mau_trial_days",
    "mau_appservice_trial_days.*",
    "limit_remote_rooms.complexity",
    "old_signing_keys.*.expired_ts",
    "cas_config.protocol_version",
    "password_config.policy.minimum_length",
    "dummy_events_threshold",
    "federation.destination_retry_multiplier",
    # Sizes of other servers' and the tenant's own, which are in the tenant's storage.
    "max_avatar_size",
    "media_upload_limits[].max_size",
}
#: Addresses that are shown to browsers or compared, and never connected to by the homeserver.
NOT_CONNECTED = {
    "public_baseurl",
    "web_client_location",
    "oidc_providers[].redirect_uri",
    "oidc_config.redirect_uri",
    "default_identity_server",
    # Libpq's, whose host is of the tenant's choice: docs/isolation.md.
    "database.args.host",
}
#: Addresses that test_network.py has the homeserver connect to.
CONNECTED = {
    "report_stats_endpoint",
    "account_threepid_delegates.msisdn",
    "account_threepid_delegates.email",
    "recaptcha_siteverify_api",
    "cas_config.server_url",
    "matrix_authentication_service.endpoint",
    "email.smtp_host",
    "synapse_shards.app_services[].url",
    "synapse_shards.app_services[].io.element.msc4512.proxy_url",
    *(
        f"{provider}.{key}"
        for provider in ("oidc_providers[]", "oidc_config")
        for key in ("issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
    ),
}


def config_of(path: str, value: Any) -> dict[str, Any]:
    """A configuration with one option, and what the options around it need to be read."""
    made: Any = value
    for key in reversed(split(path)):
        made = [made] if key == ITEM else {"each" if key == EACH else key: made}
    if path.startswith("database."):
        made["database"] = {"name": "psycopg2", **made["database"]}
        made["database"]["args"] = {"host": "db.example", "dbname": "d", **made["database"].get("args", {})}
    whole: dict[str, Any] = made
    return whole


def passes(path: str, value: Any) -> dict[str, Any] | None:
    """What reaches Synapse of an option, if it is not refused."""
    try:
        return check_options(config_of(path, value), "a.example", {}, Policy()).options
    except TenantError as error:
        assert error.code in ("OptionNotAllowed", "InvalidConfig")
        return None


_LOADER = """
import json, os, sys, tempfile
sys.path.insert(0, sys.argv[1]); planted, secret = sys.argv[2], sys.argv[3]
sys.path.insert(0, planted)
from multi_synapse import config as tenant_config, patches
from multi_synapse.errors import TenantError
from multi_synapse.options.check import Checked
from multi_synapse.state import Assignment
patches.apply_all()
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in ("open", "os.listdir", "os.scandir") else None)
base = {"server_name": "a.example", "public_baseurl": "https://a.example/", "report_stats": False,
        "database": {"name": "psycopg2", "args": {"host": "db"}}, "media_store_path": os.path.join(planted, "media"),
        "macaroon_secret_key": "m", "form_secret": "f", "suppress_key_server_warning": True, "trusted_key_servers": []}
key = "ed25519 a_x " + "A" * 43
def load(options):
    assignment = Assignment("a.example", 1, base, "", key)
    with tempfile.TemporaryDirectory() as directory:
        from pathlib import Path
        (Path(directory) / "signing.key").write_text(key)
        tenant = tenant_config._tenant_options(assignment, Checked(options))
        try:
            tenant_config.write_configuration(tenant, Path(directory), "127.0.0.1", 0)
            tenant_config.load_homeserver_config(Path(directory), options)
        except Exception as error:
            return type(error).__name__
    return "loaded"
results = {}
for line in sys.stdin:
    path, options = json.loads(line)
    opened.clear()
    how = load(options)
    results.setdefault(how, []).append(path)
    touched = [name for name in opened if secret in name]
    assert not touched, f"{path} opened {touched}"
    assert "planted_module" not in sys.modules, f"{path} imported the module"
print(json.dumps({how: len(paths) for how, paths in results.items()}))
"""


@pytest.fixture
def planted(folder: Path) -> Path:
    """A file and a module that no tenant may reach."""
    (folder / "secret-of-the-machine").write_text("secret")
    (folder / "secret-of-the-machine.d").mkdir()
    (folder / "planted_module.py").write_text("class Module: pass\n")
    return folder


def test_no_option_opens_a_file_or_imports_a_module(planted: Path, python: Path) -> None:
    secret = planted / "secret-of-the-machine"
    values: list[Any] = [str(secret), [str(secret)], {"path": str(secret)}]
    tried = []
    for path in LEAVES:
        # The first shape that is let through; a whole configuration is read for each.
        options = next((passed for value in values if (passed := passes(path, value))), None)
        if options:
            tried.append(json.dumps([path, options]))
    assert len(tried) > 200
    done = subprocess.run(
        [python, "-c", _LOADER, str(CHECKOUT), str(planted), secret.name],
        input="\n".join(tried),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # So that the hook has seen whole configurations being read.
    assert json.loads(done.stdout.splitlines()[-1])["loaded"] > 100


@pytest.mark.parametrize("path", [path for path, option in LEAVES.items() if option.kind is MODULE])
def test_no_option_names_a_module_that_is_not_allowed(path: str) -> None:
    for name in ("os.system", "planted_module.Module", "synapse.module_api.ModuleApi", "multi_synapse.well_known", ["x"], {"a": 1}, 1, ""):
        assert passes(path, name) is None, name


@pytest.mark.parametrize("path", [path for path, option in LEAVES.items() if option.kind in (PATTERN, PREVIEW_PATTERN)])
def test_no_option_takes_a_pattern_that_takes_forever(path: str) -> None:
    for pattern in (
        r"^((([a-z])+)*)+[A-Z]$",
        r"^(a|aa)+$",
        r"^(.*a){30}$",
        r"^(a)\1$",
        r"^(?=a+b)",
        "^" + "(a{500}){500}",
        "^" + "(" * 5000,
    ):
        if passes(path, pattern) is None:
            continue
        begun = time.process_time()
        _compiled(pattern).match("a" * 5000 + "!")
        assert time.process_time() - begun < 1, pattern


def _numbers() -> list[tuple[str, Option]]:
    return [(path, option) for path, option in LEAVES.items() if option.kind.number is not None]


@pytest.mark.parametrize(("path", "option"), _numbers(), ids=[path for path, _ in _numbers()])
def test_every_number_has_a_bound(path: str, option: Option) -> None:
    huge: tuple[Any, ...] = (10**30, "999999999999999999999999999999", float("inf"), float("nan"), "1e30", ".inf", "nan")
    if path in WITHOUT_BOUND:
        assert option.kind.most is None
        return
    for value in huge:
        assert passes(path, value) is None, value
    if option.kind.least is not None:
        assert passes(path, -(10**30)) is None
        assert passes(path, "-999999999") is None


def test_every_address_is_connected_to_by_the_platforms_rule_or_never() -> None:
    addresses = {path.replace("<", "").replace(">", "") for path, option in LEAVES.items() if option.kind in (URL, HOST)}
    assert addresses == NOT_CONNECTED | CONNECTED


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_no_value_of_any_shape_breaks_the_check(path: str) -> None:
    values: list[Any] = [None, True, 0, -1, 1.5, "", "x", "x" * 20_000, [], [[]], [{}], {}, {"a": {"b": ["c"]}}, [None], {"": None}]
    for value in values:
        passes(path, value)
