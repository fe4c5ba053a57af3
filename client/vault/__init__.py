"""What the client keeps on disk, encrypted as a whole."""
