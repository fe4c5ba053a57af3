"""What goes wrong at the relay's edges, for its admin."""


class RelayError(Exception):
    """The text is what the admin reads: what happened, and what to do. It holds no secret."""


class UsageError(RelayError):
    """The admin can mend it: a wrong option, file, name or state of the data folder."""


def why(error: OSError) -> str:
    """The system's short reason, without the path (the sentence around it names that)."""
    return error.strerror or type(error).__name__
