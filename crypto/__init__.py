"""What keeps a message private. Pure: no I/O, no threads, no clock."""
