"""What things cost, measured; nothing here is a test."""
