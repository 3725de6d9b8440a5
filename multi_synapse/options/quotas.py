"""What a tenant may have at most: a part of the operator's policy, and what of it becomes options of homeserver.yaml (docs/quotas.md)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

_MOST = 2**53
_DEFAULT_UPLOAD = "50M"
_SIZES = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True)
class Quotas:
    """None: any number."""

    users: int | None = None
    monthly_active_users: int | None = None
    media_bytes: int | None = None
    database_bytes: int | None = None
    upload_bytes: int | None = None
    remote_room_complexity: float | None = None

    def to_json(self) -> dict[str, Any]:
        values = {_camel(field.name): getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if value is not None}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def parse_quotas(raw: Any) -> Quotas:
    """@raises ValueError that names the field"""
    if not isinstance(raw, dict):
        raise ValueError("quotas is not an object")
    names = {_camel(field.name): field.name for field in fields(Quotas)}
    for key, value in raw.items():
        if key not in names:
            raise ValueError(f"quotas.{key} is unknown, allowed are {', '.join(sorted(names))}")
        fractions = key == "remoteRoomComplexity" and isinstance(value, float)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or fractions) or not 0 <= value <= _MOST:
            raise ValueError(f"quotas.{key} is not a {'' if key == 'remoteRoomComplexity' else 'whole '}number from 0")
    return Quotas(**{names[key]: value for key, value in raw.items()})


def bounded(whole: dict[str, Any], quotas: Quotas) -> dict[str, Any]:
    """Options of homeserver.yaml that a tenant may make narrower and not wider. `whole` is what it has without quotas."""
    options: dict[str, Any] = {}
    if quotas.upload_bytes is not None:
        options["max_upload_size"] = min(_bytes(whole.get("max_upload_size", _DEFAULT_UPLOAD)), quotas.upload_bytes)
    if quotas.monthly_active_users is not None:
        own = whole.get("max_mau_value") if whole.get("limit_usage_by_mau") is True else None
        options["limit_usage_by_mau"] = True
        options["max_mau_value"] = _narrower(own, quotas.monthly_active_users)
        # Users on trial and reserved ones are not counted, however many they are.
        options |= {"mau_trial_days": 0, "mau_appservice_trial_days": {}, "mau_limit_reserved_threepids": []}
    if quotas.remote_room_complexity is not None:
        given = whole.get("limit_remote_rooms")
        own_rooms = given if isinstance(given, dict) else {}
        own = own_rooms.get("complexity") if own_rooms.get("enabled") is True else None
        complexity = _narrower(own, quotas.remote_room_complexity)
        options["limit_remote_rooms"] = {**own_rooms, "enabled": True, "complexity": complexity, "admins_can_join": False}
    return options


def _bytes(value: Any) -> int:
    """As Synapse reads a size; what it does not read, it refuses itself."""
    try:
        text = str(value)
        return int(text[:-1]) * _SIZES[text[-1]] if text[-1:] in _SIZES else int(text)
    except ValueError:
        return _MOST


def _narrower(own: Any, quota: float) -> float:
    is_number = isinstance(own, int | float) and not isinstance(own, bool)
    return min(own, quota) if is_number else quota
