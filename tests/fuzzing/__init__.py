"""Bytes that nobody of ours wrote: one set of targets, for `make test` and for `make fuzz`."""
