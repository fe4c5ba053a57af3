"""The contract between client and relay. Pure: no I/O, no threads, no clock."""
