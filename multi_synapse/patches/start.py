"""What every start would do again, shared (together 70 ms of CPU a tenant), and what would keep the reactor in one piece, divided."""

from __future__ import annotations

import functools
import json
import sys
import types
from typing import Any

import jinja2
import jsonschema
import yaml
from jsonschema.validators import validator_for
from synapse.app.homeserver import SynapseHomeServer
from synapse.config import _util as config_util
from synapse.config.sso import SSOConfig
from synapse.http.server import JsonResource

from ..waiting import breathe
from .process import replace


class _SharedBytecode(jinja2.BytecodeCache):
    """Compiled templates by their name and the hash of their source."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: Any) -> None:
        bucket.code = self._compiled.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Any) -> None:
        self._compiled[bucket.key, bucket.checksum] = bucket.code


def share_compiled_templates() -> None:
    shared = _SharedBytecode()
    original = jinja2.Environment.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("bytecode_cache", shared)
        original(self, *args, **kwargs)

    replace(jinja2.Environment, "__init__", init)


def share_rendered_pages() -> None:
    original = SSOConfig.read_config

    def read_config(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for name in ("sso_account_deactivated_template", "sso_auth_success_template"):
            # One string for all that are equal; it goes when the last of its tenants does.
            setattr(self, name, sys.intern(getattr(self, name)))

    replace(SSOConfig, "read_config", read_config)


def share_validators() -> None:
    validators: dict[str, Any] = {}

    def validate(instance: Any, schema: Any) -> None:
        key = json.dumps(schema, sort_keys=True, default=str)
        validator = validators.get(key)
        if validator is None:
            kind = validator_for(schema)
            kind.check_schema(schema)
            validator = validators[key] = kind(schema)
        error = jsonschema.exceptions.best_match(validator.iter_errors(instance))
        if error is not None:
            raise error

    # In the config parser only: event validation passes its own validator classes.
    names = ("ValidationError", "SchemaError", "exceptions")
    stand_in = types.SimpleNamespace(**{name: getattr(jsonschema, name) for name in names}, validate=validate)
    replace(config_util, "jsonschema", stand_in)


def use_fast_yaml() -> None:
    if hasattr(yaml, "CSafeLoader"):
        replace(yaml, "safe_load", lambda stream: yaml.load(stream, Loader=yaml.CSafeLoader))


def register_servlets_in_pieces() -> None:
    original = JsonResource.register_paths
    under_way = _builders(SynapseHomeServer)

    def register_paths(self: Any, *args: Any, **kwargs: Any) -> None:
        # Not within `HomeServer.get_*`, of which each can be at work only once in the process. Elsewhere no part of the tenant is
        # half made: what runs meanwhile can use each of its handlers. No request can reach it yet.
        breathe(unless=lambda: any(building[0] for building in under_way))
        original(self, *args, **kwargs)

    replace(JsonResource, "register_paths", register_paths)


def _builders(kind: type[Any]) -> list[list[bool]]:
    """Of each getter made by Synapse's `cache_in_self`, the flag that says whether it is at work, for any tenant."""
    found = []
    for owner in kind.__mro__:
        for value in vars(owner).values():
            names = value.__code__.co_freevars if isinstance(value, types.FunctionType) else ()
            if "building" in names:
                found.append(value.__closure__[names.index("building")].cell_contents)
    if not found:
        raise AttributeError(f"no getter of {kind.__name__} says that it is building")
    return found
