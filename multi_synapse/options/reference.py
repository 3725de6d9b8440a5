"""`python -m multi_synapse.options.reference`: writes docs/configuration.md from the table of options."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from . import SECTIONS
from .option import PLATFORM, REFUSED, TENANT, Section

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

_INTRODUCTION = """# Configuration of tenants

<!-- Made by `python -m multi_synapse.options.reference` from multi_synapse/options; do not edit. -->

A tenant's configuration is a homeserver.yaml, of which its owner writes as much as is wanted. Many tenants share a
process, so every option of the supported releases of Synapse is in one of three classes:

- **tenant's**: the owner decides, within the bounds given here;
- **platform's**: the platform sets it, and a tenant's own value is refused;
- **refused**: nobody sets it in a shard. A [dedicated](kubernetes.md) tenant can.

An option that is in no class does not reach Synapse: it is a warning, which names the nearest known option. So is a
value of the wrong type. Keys that begin with `x-` are for YAML's anchors and are left out. An option that is refused
is accepted in the form that turns it off (`null`, `false`, an empty value, `enabled: false`), so that an existing
homeserver.yaml needs little editing.

## What an operator can allow

`tenantPolicy` in the cluster's configuration, or in the chart's values, holds for all tenants; below `byTenant.NAME`
it adds to that for one. A change counts at a tenant's next start.

| setting | meaning |
| --- | --- |
| `allowedOptions` | paths of options as below, for example `rc_message` or `oidc_providers[].client_secret_path`; what is named passes as it is, with all below it |
| `tenantDefaults` | a layer of homeserver.yaml between the platform's and the tenant's own; its top-level keys are replaced by the tenant's. A tenant may have any value that is in it, also above a bound |
| `allowedHosts` | names that `public_baseurl` and `synapse_shards.hosts` may have beside the tenant's server name and those below it: `matrix.example` or `*.hosting.example` |
| `allowedModules` | Python modules that tenants may name, dotted and with the class; [modules.md](modules.md) says how they are installed |
| `allowedDestinations` | addresses and networks that tenants may connect to although they are private: `10.1.2.3:9000`, `10.1.0.0/16` |
| `refusedNetworks` | networks that they may not connect to, beside private, loopback, link-local and other special ones; for all tenants only |

Modules and what `allowedOptions` lets through run with the rights of the shard: allow what you have read.

## In place of files

No option of a tenant names a file, directory or socket of the machine. What Synapse reads from files is given inline:

```yaml
synapse_shards:
  app_services:
    - id: bridge
      url: https://bridge.clinic.example
      as_token: …
      hs_token: …
      sender_localpart: bridge
      namespaces: {users: [{regex: "@bridge_.*", exclusive: true}]}
  templates:
    notif_mail.html: |
      <p>Hello {{ user_display_name }}</p>
  consent_templates:
    en: {"1.0": "<p>Our policy</p>"}
  federation_authorities: |
    -----BEGIN CERTIFICATE-----
  database_authorities: |
    -----BEGIN CERTIFICATE-----
  hosts: [chat.clinic.example]      # further names that lead to the tenant
```

Templates run in a sandbox: no macros and imports, filters and methods of texts that cannot make a text of any length,
and {steps} steps for a page. Regular expressions are those of RE2, which has no look-around and no back-references.
"""


def page() -> str:
    """The whole page."""
    introduction = _INTRODUCTION.replace("{steps}", "20,000")
    parts = [introduction]
    for owner in (TENANT, PLATFORM, REFUSED):
        for section in SECTIONS:
            if section.owner == owner:
                parts.append(_section(section))
    return "\n".join(parts)


def _section(section: Section) -> str:
    why = section.why[0].upper() + section.why[1:]
    lines = [f"## {section.title}", "", *textwrap.wrap(f"Class: **{section.owner}**. {why}.", 120, break_long_words=False), ""]
    lines += ["| option | value | why |", "| --- | --- | --- |"]
    for path, row in section.rows.items():
        kind, reason = row if isinstance(row, tuple) else (row, section.why)
        value = ", ".join(filter(None, (kind.what, kind.bounds))) if section.owner == TENANT else ""
        own = reason if reason != section.why else ""
        lines.append(f"| `{_shown(path)}` | {_cell(value)} | {_cell(own)} |")
    return "\n".join([*lines, ""])


def _shown(path: str) -> str:
    return re.sub(r"<([^>]*)>", r"\1", path)


def _cell(text: str) -> str:
    return re.sub(r"(?<!`)\*(?!\*)", r"\\*", text).replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
