"""What the relay keeps on disk."""
