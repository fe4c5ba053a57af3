"""What goes wrong at the relay's edges, for its admin."""

from pathlib import Path


class RelayError(Exception):
    """The text is what the admin reads: what happened, and what to do. It holds no secret."""


class UsageError(RelayError):
    """The admin can mend it: a wrong option, file, name or state of the data folder."""


def why(error: OSError) -> str:
    """The system's short reason, without the path (the sentence around it names that)."""
    return error.strerror or type(error).__name__


def where(error: BaseException) -> str:
    """The kind and place of a fault of ours, without what the exception says: it may quote."""
    trace = error.__traceback__
    place = ""
    while trace is not None:
        place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return type(error).__name__ + place
