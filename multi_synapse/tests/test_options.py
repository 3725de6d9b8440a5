"""The table of options against Synapse's own source: nothing that a release reads is in no class."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from multi_synapse.options import SECTIONS, TABLE
from multi_synapse.options.kinds import FILE_NAME
from multi_synapse.options.option import ITEM, TENANT, find, join, split, walk
from multi_synapse.options.reference import PAGE, page

from .conftest import pythons
from .synapse_options import Found, options_read_by

#: Keys whose path is not followed, with where they are: below options that the table decides as a whole, or no options at all.
ELSEWHERE = {
    "max_cache_memory_usage": "caches.cache_autotuning",
    "target_cache_memory_usage": "caches.cache_autotuning",
    "min_cache_ttl": "caches.cache_autotuning",
    "type": "matrix_rtc.transports[]",
    "livekit_service_url": "matrix_rtc.transports[]",
    "alg": "oidc_providers[].client_secret_jwt_key.jwt_header",
    "m.homeserver": "extra_well_known_client_content",
    "m.identity_server": "extra_well_known_client_content",
    "tls": "listeners",
    "bind_addresses": "listeners",
    "path": "instance_map",
    "username": "manhole_settings",
    "ssh_priv_key_path": "manhole_settings",
    "ssh_pub_key_path": "manhole_settings",
    # A file of oEmbed providers, which a tenant cannot name.
    **dict.fromkeys(("endpoints", "schemes", "formats", "provider_name", "provider_url", "discovery"), "oembed.additional_providers"),
    # Of the process's environment, of logging's own configuration, and of a schema's definitions.
    **dict.fromkeys(("http", "https", "no", "log_text", "structured", "OidcProviderConfig"), ""),
}
#: Found by following keys too far: the second argument of a helper that is the name of its own option.
NO_OPTIONS = {
    ("burst_count",),
    ("per_second",),
    ("room_list_publication_rules", ITEM, "alias_creation_rules"),
    ("room_list_publication_rules", ITEM, "room_list_publication_rules"),
}
#: Words of options that name files, directories and programs.
FILE_WORDS = ("_path", "_file", "_files", "_dir", ".custom_template_directory")


def site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())


@pytest.fixture(scope="module", params=pythons(), ids=lambda python: python.parents[1].name)
def found(request: pytest.FixtureRequest) -> Found:
    return options_read_by(site_packages(request.param))


def test_every_option_that_synapse_reads_is_in_a_class(found: Found) -> None:
    assert len(found.paths) > 400
    unknown = sorted(join(path) for path in found.paths - NO_OPTIONS if find(TABLE, path) is None)
    assert unknown == []


def test_every_key_whose_place_is_not_known_is_in_a_class(found: Found) -> None:
    names = {key for path, _ in walk(TABLE) for key in split(path)}
    unknown = {key: sorted(places) for key, places in found.loose.items() if key not in names and key not in ELSEWHERE}
    assert unknown == {}


def test_the_places_of_other_keys_are_decided_as_a_whole() -> None:
    for place in filter(None, ELSEWHERE.values()):
        option = find(TABLE, tuple(split(place)))
        assert option is not None and not option.keys, place


def test_an_option_of_a_new_release_is_noticed(folder: Path) -> None:
    config = folder / "synapse" / "config"
    config.mkdir(parents=True)
    (config / "server.py").write_text(
        "class ServerConfig:\n"
        "    def read_config(self, config, **kwargs):\n"
        "        self.a = config.get('brand_new_option')\n"
        "        section = config.get('email') or {}\n"
        "        self.b = self._read(section)\n"
        "        for item in config['oidc_providers']:\n"
        "            self.c = item['secret_file']\n"
        "    def _read(self, section):\n"
        "        return section['html_dir']\n"
    )
    found = options_read_by(folder)
    unknown = {join(path) for path in found.paths if find(TABLE, path) is None}
    assert unknown == {"brand_new_option", "email.html_dir", "oidc_providers[].secret_file"}


def test_no_option_of_a_tenant_names_a_file() -> None:
    tenants = [(path, option) for path, option in walk(TABLE) if option.owner == TENANT]
    for path, option in tenants:
        if path.endswith(FILE_WORDS):
            # Names of templates, which are looked for in the tenant's own directory.
            assert option.kind is FILE_NAME, path


def test_every_option_has_a_reason() -> None:
    for path, option in walk(TABLE):
        assert option.why, path
    assert all(section.why and section.rows for section in SECTIONS)


def test_the_page_of_the_documentation_is_made_from_the_table() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m multi_synapse.options.reference"
