"""A shard: one process that hosts many Synapse homeservers. The contract is docs/control-api.md."""

import logging

# First of all, in every process of this package: libraries warn in words when they are imported, on the stderr that a shard's
# processes share, whose lines are JSON. As records of the log they are lines of it, or none before it is set up.
logging.captureWarnings(True)
