"""Reads YAML texts as a shard does: a JSON string in a line of input, what PyYAML makes of it in a line of output."""

import json
import math
import sys

import yaml


def shown(value):
    """As src/model/synapse-yaml.ts has it; what it refuses is shown as something that equals nothing."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else "\0" + name(key): shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return "float " + ("nan" if math.isnan(value) else repr(value + 0.0) if math.isinf(value) else f"{value:.9e}")
    if isinstance(value, int):
        return value if abs(value) < 2**53 else f"bigint {value}"
    return f"python {type(value).__name__}"


def name(key):
    if key is None:
        return "null"
    return str(int(key)) if float(key).is_integer() else str(key)


for line in sys.stdin:
    try:
        answer = {"value": shown(yaml.load(json.loads(line), Loader=yaml.CSafeLoader))}
    except Exception as error:  # noqa: BLE001: whatever PyYAML raises, also IndexError, refuses the text
        answer = {"error": type(error).__name__}
    print(json.dumps(answer), flush=True)
