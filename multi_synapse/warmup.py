"""First-time work, done before the shard serves anybody: compiling templates, checking schemas, importing."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import yaml
from synapse.config.homeserver import HomeServerConfig

from .patches import tls

logger = logging.getLogger(__name__)

_KEY = "ed25519 a_warm AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"


def warm_up(directory: Path) -> None:
    """Parses a throw-away configuration, and makes what all tenants share; failing costs only time later."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="warmup-") as scratch:
        folder = Path(scratch)
        (folder / "signing.key").write_text(_KEY)
        config = {
            "server_name": "warmup.invalid",
            "report_stats": False,
            "signing_key_path": str(folder / "signing.key"),
            "media_store_path": str(folder / "media"),
            "database": {"name": "psycopg2", "args": {}},
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "macaroon_secret_key": "unused",
        }
        (folder / "base.yaml").write_text(yaml.safe_dump(config))
        try:
            tls.make_contexts(HomeServerConfig.load_config("multi_synapse", ["-c", str(folder / "base.yaml")]))
        except Exception:
            logger.warning("warming up failed", exc_info=True)
