"""A room's entries, however many the relay pushes at once: as tests see them, one by one."""

from saltline.protocol.messages import RelayMessage, encode_message
from saltline.protocol.to_client import Author, Entries, Pushed, RoomEntry

Heard = RelayMessage | RoomEntry


def unfolded(message: RelayMessage) -> list[Heard]:
    """The message, or the entries that it brings."""
    return [*message.each()] if isinstance(message, Entries) else [message]


def push_of(entry: RoomEntry) -> Entries:
    """One entry, as the relay would push it by itself."""
    author = Author(entry.username, entry.device)
    pushed = Pushed(0, entry.statement, entry.signature)
    return Entries(entry.room, entry.number, (author,), (pushed,))


def encode_heard(message: Heard) -> bytes:
    """The body of the frame that brings it."""
    return encode_message(push_of(message) if isinstance(message, RoomEntry) else message)
