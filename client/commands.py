"""What the core asks its edge to do. By the time a command exists, the vault has committed."""

from dataclasses import dataclass

from saltline.client.model import ConnectionState, Event, Refused


@dataclass(frozen=True, slots=True)
class Transmit:
    """Put these bytes (whole frames) on the link."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the link. `retry`: whether to come back by itself."""

    state: ConnectionState
    detail: str
    retry: bool


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell whoever watches."""

    event: Event


@dataclass(frozen=True, slots=True)
class Answer:
    """A ticket is done: its result, or why it was refused."""

    ticket: int
    result: object
    error: Refused | None = None


Command = Transmit | Disconnect | Emit | Answer
