"""A tenant's part of homeserver.yaml: read, checked option by option, and made into what Synapse may read."""

from . import table_platform, table_server, table_users
from .option import build

SECTIONS = (*table_server.SECTIONS, *table_users.SECTIONS, *table_platform.SECTIONS)
#: Every option of the supported releases of Synapse, with who decides it.
TABLE = build(SECTIONS)
