"""The messenger: vault, outbox, link to the relay, and its three faces."""
