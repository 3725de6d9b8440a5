"""Makes the keys that a homeserver lacks, in one Secret, and changes none that is there. Needs Python's standard library alone."""

import base64
import json
import os
import secrets
import ssl
import sys
import urllib.error
import urllib.request

ACCOUNT = os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount")
API = os.environ.get("API_SERVER", "https://kubernetes.default.svc")
#: Uninstalling the release leaves the keys: without them no other server trusts the homeserver again.
ANNOTATIONS = {"helm.sh/resource-policy": "keep"}


def call(method: str, path: str, body: object = None) -> tuple[int, dict]:
    with open(f"{ACCOUNT}/token", encoding="utf-8") as file:
        headers = {"Authorization": f"Bearer {file.read().strip()}", "Accept": "application/json"}
    headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, headers, method=method)
    context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt") if API.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def made(key: str) -> str:
    if key == "SYNAPSE_SIGNING_KEY":
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        return f"ed25519 a_{secrets.token_hex(3)} {seed}"
    return secrets.token_urlsafe(36)


def main(namespace: str, name: str, tenant: str, *keys: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    status, present = call("GET", f"{path}/{name}")
    if status not in (200, 404):
        sys.exit(f"cannot read the Secret {namespace}/{name}: {present.get('message', status)}")
    data = present.get("data") or {}
    missing = [key for key in keys if not data.get(key)]
    metadata = {"name": name, "labels": {"synapse-shards.io/tenant": tenant}, "annotations": ANNOTATIONS}
    body = {"metadata": metadata, "stringData": {key: made(key) for key in missing}}
    if status == 404:
        status, answer = call("POST", path, {"apiVersion": "v1", "kind": "Secret", **body})
    else:
        # Of the version that was read: somebody else's keys are not replaced.
        metadata["resourceVersion"] = present["metadata"]["resourceVersion"]
        status, answer = call("PATCH", f"{path}/{name}", body)
    if status not in (200, 201):
        sys.exit(f"cannot write the Secret {namespace}/{name}: {answer.get('message', status)}")
    print(f"made {', '.join(missing) or 'nothing'}; the Secret {namespace}/{name} has {', '.join(keys)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
