"""The relay under load, beside its peers (README.md)."""
