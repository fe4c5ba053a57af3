"""The demonstration, and a relay to try the screen with."""
