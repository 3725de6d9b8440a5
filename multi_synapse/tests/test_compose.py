"""What puts a dedicated Synapse's configuration together on Kubernetes: nothing that the tenant had is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "charts" / "matrix-stack" / "files" / "compose.py"
KEYS = {"macaroon-secret-key": "m", "form-secret": "f", "registration-shared-secret": "r", "signing.key": "ed25519 a_x AAAA"}


class Composed:
    """The pod's directories, and the program's run in them."""

    def __init__(self, directory: Path, homeserver: str, refs: list[tuple[dict[str, str], str]]) -> None:
        self.secret, self.refs, self.chart, self.out = (directory / name for name in ("secret", "refs", "chart", "config"))
        for folder in (self.secret, self.refs, self.chart, self.out):
            folder.mkdir()
        for name, content in {"homeserver.yaml": homeserver, **KEYS}.items():
            (self.secret / name).write_text(content)
        for index, (_, content) in enumerate(refs):
            (self.refs / str(index)).write_text(content)
        (self.chart / "refs.json").write_text(json.dumps([ref for ref, _ in refs]))
        (self.chart / "dedicated.yaml").write_text("server_name: clinic.example\nlisteners: [{resources: [{names: [client]}]}]\n")
        arguments = [str(path) for path in (self.secret, self.refs, self.chart, self.out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.run = subprocess.run(
            [sys.executable, str(COMPOSE), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def config(self) -> Any:
        assert self.run.returncode == 0, self.run.stderr
        return json.loads((self.out / "homeserver.yaml").read_text())


def app_service(name: str) -> tuple[dict[str, str], str]:
    registration = yaml.safe_dump({"id": name, "as_token": "a", "hs_token": "h", "sender_localpart": name, "url": None})
    return {"for": "app-service", "name": "s", "key": name}, registration


def test_bridges_of_the_configuration_and_of_secrets_are_files_that_synapse_reads(tmp_path: Path) -> None:
    inline = {"id": "inline", "as_token": "a", "hs_token": "h", "sender_localpart": "inline"}
    homeserver = yaml.safe_dump({"synapse_shards": {"app_services": [inline], "hosts": ["chat.clinic.example"]}, "enable_search": False})
    bot, registration = app_service("bot")
    of_config_map = ({"for": bot["for"], "configMap": "c", "key": "bot"}, registration)
    config = Composed(tmp_path, homeserver, [app_service("bridge"), of_config_map]).config
    files = [yaml.safe_load(Path(path).read_text()) for path in config["app_service_config_files"]]
    assert [one["id"] for one in files] == ["inline", "bridge", "bot"]
    assert files[0]["namespaces"] == {} and files[0]["url"] is None
    assert "synapse_shards" not in config and config["enable_search"] is False


def test_templates_and_authorities_go_along(tmp_path: Path) -> None:
    homeserver = yaml.safe_dump({"synapse_shards": {"templates": {"notif.html": "hello"}, "federation_authorities": "PEM"}})
    config = Composed(tmp_path, homeserver, []).config
    assert (Path(config["templates"]["custom_template_directory"]) / "notif.html").read_text() == "hello"
    assert [Path(path).read_text() for path in config["federation_custom_ca_list"]] == ["PEM"]


def test_each_authority_has_a_file_of_its_own_as_synapse_takes_one_of_each(tmp_path: Path) -> None:
    authorities = [f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----" for name in ("one", "two")]
    pem = "# ours\n" + "\n# theirs\n".join(authorities) + "\n"
    config = Composed(tmp_path, yaml.safe_dump({"synapse_shards": {"federation_authorities": pem}}), []).config
    assert [Path(path).read_text() for path in config["federation_custom_ca_list"]] == authorities


@pytest.mark.parametrize(
    ("option", "code", "words"), [("enable_search: false", 0, "parses OK"), ("max_upload_size: x", 1, "max_upload_size")]
)
def test_synapse_itself_reads_it_before_an_upgrade(tmp_path: Path, option: str, code: int, words: str) -> None:
    """What the Job of `checkConfigHook` runs, which is to tell a wrong configuration from a right one."""
    database = {"name": "psycopg2", "args": {"host": "db", "user": "u", "dbname": "d", "cp_min": 1, "cp_max": 5}}
    ours = {"templates": {"notif.html": "hello"}}
    text = f"{option}\n" + yaml.safe_dump({"database": database, "synapse_shards": ours})
    composed = Composed(tmp_path, text, [app_service("bridge")])
    assert composed.run.returncode == 0, composed.run.stderr
    dedicated = {**json.loads((composed.out / "dedicated.yaml").read_text()), "media_store_path": str(tmp_path / "media")}
    dedicated.update(signing_key_path=str(composed.out / "signing.key"), listeners=[])
    (composed.out / "signing.key").write_text(f"ed25519 a_x {'A' * 43}\n")
    (composed.out / "dedicated.yaml").write_text(json.dumps(dedicated))
    files = [f"--config-path={composed.out / name}" for name in ("homeserver.yaml", "dedicated.yaml")]
    arguments = [sys.executable, "-m", "synapse.config", *files]
    read = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert read.returncode == code and words in read.stdout + read.stderr, read.stderr


@pytest.mark.parametrize(
    ("homeserver", "refs", "words"),
    [
        ("", [({"for": "app-service", "name": "s", "key": "k"}, "- a")], "the key k of the Secret s is not a YAML mapping"),
        ("synapse_shards: {app_services: [{id: x}]}", [], "synapse_shards.app_services[0].as_token is missing"),
        ("synapse_shards: wrong", [app_service("bridge")], "synapse_shards is not a mapping"),
        ("synapse_shards: {app_services: wrong}", [app_service("bridge")], "synapse_shards.app_services is not a list"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, homeserver: str, refs: list[tuple[dict[str, str], str]], words: str) -> None:
    composed = Composed(tmp_path, homeserver, refs)
    assert composed.run.returncode == 1 and words in composed.run.stderr
    assert "Traceback" not in composed.run.stderr
