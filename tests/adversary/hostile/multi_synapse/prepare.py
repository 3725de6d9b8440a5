"""In the place of a preparer: does what the first command's database is called, an expression each, and answers in an error."""

import json
import os
import sys

print(json.dumps({"event": "ready", "release": "1.163.2", "schemaVersion": 1, "schemaCompatVersion": 1}), flush=True)
found = []
for expression in json.loads(json.loads(sys.stdin.readline())["database"]["dbname"]):
    try:
        found.append(repr(eval(expression)))
    except BaseException as error:
        found.append(type(error).__name__)
print(json.dumps({"event": "error", "code": "Found", "message": json.dumps(found)}), flush=True)
print("ends", file=sys.stderr, flush=True)
os._exit(0)
