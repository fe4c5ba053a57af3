"""From what went wrong to the sentence and exit code that a person gets."""

from saltline.client.model import ConnectionChanged, ExitCode, Refused
from saltline.client.vault.database import NewerVault, VaultError, WrongKey
from saltline.protocol.names import BadName


def describe(error: BaseException) -> str:
    """Name a defect by its kind and place: its text could hold what is nobody's business."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return type(error).__name__
    file = place.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{type(error).__name__}, {file}:{place.tb_lineno}"


def as_refused(error: BaseException) -> Refused:
    """What a person reads of a failed call."""
    match error:
        case Refused():
            return error
        case BadName():
            return Refused(str(error))
        case WrongKey() | NewerVault():
            return Refused(str(error))
        case VaultError():
            return Refused(str(error), ExitCode.INTERNAL)
        case _:
            return Refused(
                f"Internal error ({describe(error)}). What was saved before is safe.",
                ExitCode.INTERNAL,
            )


class Closed(Refused):
    """The messenger is closed. What was queued is safe."""

    def __init__(self) -> None:
        super().__init__("The messenger is closed. What was queued is safe.", ExitCode.TIMED_OUT)


def no_account() -> Refused:
    """For who asks before set-up."""
    return Refused("This profile has no account yet. Register first: saltline register")


def refused_link(event: ConnectionChanged) -> Refused:
    """The refusal that a refused link means for who waits for the relay."""
    return Refused(event.detail or "The relay refuses this client.", ExitCode.UNREACHABLE)
