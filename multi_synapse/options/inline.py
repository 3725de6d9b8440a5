"""What Synapse reads from files and a tenant gives inline: written into the tenant's own directory."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from ..errors import INVALID_CONFIG, TenantError

KEY = "synapse_shards"
FOLDER = "files"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def write_files(options: dict[str, Any], base: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Writes what is below `synapse_shards`, and returns the options that Synapse reads in its place.

    @param options: checked by the table
    @param directory: the tenant's own; what a former configuration left there goes
    @raises TenantError InvalidConfig
    """
    folder = directory / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    given = options.get(KEY) or {}
    made = {key: value for key, value in options.items() if key != KEY}
    services = given.get("app_services") or []
    if services:
        made["app_service_config_files"] = [_app_service(service, index, folder) for index, service in enumerate(services)]
    if given.get("templates"):
        for name, text in given["templates"].items():
            _write(folder / "templates" / _name(name, "templates"), _text(text, f"templates.{name}"))
        made["templates"] = {"custom_template_directory": str(folder / "templates")}
    if given.get("consent_templates"):
        for language, pages in given["consent_templates"].items():
            for version, text in (pages or {}).items():
                place = folder / "consent" / _name(language, "consent_templates") / (_name(version, "consent_templates") + ".html")
                _write(place, _text(text, f"consent_templates.{language}.{version}"))
        made["user_consent"] = {**(made.get("user_consent") or {}), "template_dir": str(folder / "consent")}
    if given.get("federation_authorities"):
        # Synapse takes one of each file, and passes over all others in it.
        certificates = _certificates(_text(given["federation_authorities"], "federation_authorities"))
        paths = [str(_write(folder / f"federation-authority-{index}.pem", text)) for index, text in enumerate(certificates)]
        made["federation_custom_ca_list"] = [*(base.get("federation_custom_ca_list") or []), *paths]
    if given.get("database_authorities"):
        path = _write(folder / "database-authorities.pem", _text(given["database_authorities"], "database_authorities"))
        if made.get("database"):
            arguments = {**made["database"].get("args", {}), "sslrootcert": str(path)}
            made["database"] = {**made["database"], "args": arguments}
    return made


def _app_service(service: Any, index: int, folder: Path) -> str:
    if not isinstance(service, dict):
        raise _wrong(f"app_services[{index}]", "is not a mapping")
    for key in ("id", "as_token", "hs_token", "sender_localpart"):
        if not isinstance(service.get(key), str) or not service[key]:
            raise _wrong(f"app_services[{index}].{key}", "is missing or not a text")
    text = yaml.dump({"url": None, "namespaces": {}, **service}, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return str(_write(folder / "app-services" / f"{index}.yaml", text))


def _certificates(pem: str) -> list[str]:
    """Where there is none, it is for Synapse to say what is wrong with the text."""
    return _CERTIFICATE.findall(pem) or [pem]


def _name(name: str, where: str) -> str:
    if not _NAME.fullmatch(name):
        raise _wrong(where, "has a name with other characters than letters, digits, dots, dashes and underscores")
    return name


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "is not a text")
    return value


def _wrong(where: str, what: str) -> TenantError:
    return TenantError(INVALID_CONFIG, f"the option {KEY}.{where} {what}")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Never through a link, and for nobody else.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path
