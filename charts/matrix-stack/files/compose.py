"""Puts a dedicated Synapse's configuration together: from its Secret, further Secrets that are named, and what the chart says.

The controller does the same for a tenant on a shard (src/platforms/kubernetes/store/compose-config.ts).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from multi_synapse.errors import TenantError
from multi_synapse.options.inline import KEY, write_files

DEFAULTS = {"report_stats": False, "trusted_key_servers": [], "suppress_key_server_warning": True}
KEYS = {
    "macaroon-secret-key": "macaroon_secret_key",
    "form-secret": "form_secret",
    "registration-shared-secret": "registration_shared_secret",
}


def mapping(text: str, what: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        sys.exit(f"{what} is not YAML: {error}")
    if found is not None and not isinstance(found, dict):
        sys.exit(f"{what} is not a YAML mapping of options to values")
    return found or {}


def put(config: Any, path: str, content: str, what: str) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    try:
        for part in parents:
            config = config[int(part)] if isinstance(config, list) else config.setdefault(part, {})
        config[int(last) if isinstance(config, list) else last] = content
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        sys.exit(f"{what} is to be the option {path}, and there is no such place in homeserver.yaml")


def main(secret: Path, refs: Path, chart: Path, out: Path) -> None:
    os.umask(0o077)
    own = mapping((secret / "homeserver.yaml").read_text("utf-8"), "homeserver.yaml")
    keys = {name: (secret / name).read_text("utf-8").strip() for name in [*KEYS, "signing.key"] if (secret / name).exists()}
    config: dict[str, Any] = dict(DEFAULTS)
    modules: list[Any] = []
    values = []
    services = []
    for index, ref in enumerate(json.loads((chart / "refs.json").read_text("utf-8"))):
        kind, name = ("ConfigMap", ref["configMap"]) if "configMap" in ref else ("Secret", ref["name"])
        what = f"the key {ref['key']} of the {kind} {name}"
        content = (refs / str(index)).read_text("utf-8")
        if ref["for"] == "app-service":
            services.append(mapping(content, what))
        elif ref["for"] != "homeserver.yaml":
            keys[ref["for"]] = content.strip()
        elif "path" in ref:
            values.append((ref["path"], content, what))
        else:
            part = mapping(content, what)
            modules += part.pop("modules", None) or []
            config.update(part)
    config.update(own)
    if modules:
        config["modules"] = [*modules, *(own.get("modules") or [])]
    for path, content, what in values:
        put(config, path, content, what)
    ours = config.get(KEY) or {}
    if not isinstance(ours, dict):
        sys.exit(f"the option {KEY} is not a mapping")
    inline = ours.get("app_services") or []
    if not isinstance(inline, list):
        sys.exit(f"the option {KEY}.app_services is not a list")
    config[KEY] = {**ours, "app_services": [*inline, *services]}
    try:
        # What a tenant gives inline, for want of files, is in files here.
        config = write_files(config, {}, out)
    except TenantError as error:
        sys.exit(error.message)
    missing = [name for name in [*KEYS, "signing.key"] if not keys.get(name)]
    if missing:
        sys.exit(f"these keys are missing: {', '.join(missing)}")
    dedicated = mapping((chart / "dedicated.yaml").read_text("utf-8"), "dedicated.yaml")
    if config.get("user_consent"):
        dedicated["listeners"][0]["resources"][0]["names"].append("consent")
    dedicated.update({option: keys[name] for name, option in KEYS.items()})
    (out / "signing.key").write_text(f"{keys['signing.key']}\n", "utf-8")
    # JSON is YAML, and no value changes its type on the way.
    (out / "homeserver.yaml").write_text(json.dumps(config, default=str), "utf-8")
    (out / "dedicated.yaml").write_text(json.dumps(dedicated), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
