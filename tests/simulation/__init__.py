"""A town in one thread: the real cores and stores, and one seed for everything that goes wrong."""
