"""The relay: publishes keys, forwards public messages, keeps sealed envelopes."""
