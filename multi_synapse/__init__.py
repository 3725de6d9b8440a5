"""A shard: one process that hosts many Synapse homeservers. The contract is docs/control-api.md."""
