"""The shard's log: one line of JSON per record, each with the tenant it is about. Set up once; tenants cannot change it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from twisted.internet.defer import CancelledError

_FILE_BYTES = 10 * 1024 * 1024
_FILES = 5


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            # Synapse's record factory adds these where a tenant's code logs.
            "serverName": _known(getattr(record, "server_name", None)),
            "request": _known(getattr(record, "request", None)),
            "message": message,
        }
        return json.dumps(line, ensure_ascii=False)


class _LogFile(RotatingFileHandler):
    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Without asking at each line whether the file is one: two system calls, and a chance for a busy thread to take over."""
        stream = self.stream
        return stream is not None and stream.tell() + len(self.format(record)) >= self.maxBytes


def _is_news(record: logging.LogRecord) -> bool:
    """Background processes that end because their tenant stops say so as an error, one each."""
    cancelled = record.exc_info is not None and isinstance(record.exc_info, tuple) and record.exc_info[0] is CancelledError
    return not (cancelled and record.name == "synapse.metrics.background_process_metrics")


def set_up_logging(level: str, file: Path | None) -> None:
    """Sends everything to a rotating file, or to stderr. Call it before any tenant exists."""
    from synapse.config.logger import one_time_logging_setup

    one_time_logging_setup()
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(file, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8")
        file.chmod(0o600)
    handler.setFormatter(JsonLines())
    handler.addFilter(_is_news)
    # A line that cannot be written, as on a full disk, is dropped without a stack on stderr for each.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At DEBUG these print SQL with its values, and so secrets.
    for name in ("synapse.storage.SQL", "synapse.storage.txn"):
        logging.getLogger(name).setLevel(logging.INFO)
    # A greeting of many lines at WARNING for each tenant that starts.
    logging.getLogger("synapse.config.logger").setLevel(logging.ERROR)


def _known(value: object) -> str | None:
    return None if value in (None, "", "sentinel", "unknown_server_from_sentinel_context") else str(value)
