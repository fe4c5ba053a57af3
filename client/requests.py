"""What one process of a profile asks of the one that owns it: bounded, versioned JSON structs."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from saltline.protocol.limits import MESSAGE_ID_BYTES, TEXT_MAX_BYTES

CONTROL_VERSION: Final = 2

ConversationName = Annotated[str, Meta(max_length=64)]
Username = Annotated[str, Meta(max_length=64)]
Row = Annotated[int, Meta(ge=0, le=2**62)]
Seconds = Annotated[float, Meta(ge=0, le=10_000_000)]
Limit = Annotated[int, Meta(ge=1, le=1_000_000)]
Digits = Annotated[str, Meta(max_length=400)]
# Made by who asks, so that it is the same when another owner is asked again.
MessageId = Annotated[bytes, Meta(min_length=MESSAGE_ID_BYTES, max_length=MESSAGE_ID_BYTES)]
# One more than fits, so that the sentence about its length is the core's.
Text = Annotated[str, Meta(max_length=TEXT_MAX_BYTES + 1)]


class Request(Struct, frozen=True, tag_field="ask", forbid_unknown_fields=True):
    """Base of all requests."""


class Account(Request, frozen=True, tag="account"):
    """Who is this profile?"""


class GetStatus(Request, frozen=True, tag="status"):
    """The same, and how the link is, after at most `timeout_s` of connecting."""

    timeout_s: Seconds


class ListContacts(Request, frozen=True, tag="contacts"):
    """Everybody who was met in private."""


class ListRooms(Request, frozen=True, tag="rooms"):
    """The relay's public rooms."""

    timeout_s: Seconds


class History(Request, frozen=True, tag="history"):
    """The last lines of a conversation, or those that match; oldest first."""

    conversation: ConversationName
    limit: Limit
    query: Annotated[str, Meta(max_length=1000)] | None = None


class Send(Request, frozen=True, tag="send"):
    """Queue a text, unless it is there under this id already; a room is joined if need be."""

    conversation: ConversationName
    text: Text
    id: MessageId

    def __repr__(self) -> str:
        return f"Send(to {self.conversation!r})"


class Await(Request, frozen=True, tag="await"):
    """Wait until a message of ours has come as far as `delivery`."""

    row: Row
    delivery: Annotated[int, Meta(ge=1, le=4)]
    timeout_s: Seconds


class CatchUp(Request, frozen=True, tag="catch_up"):
    """Send the outbox, take what waits on the relay, send receipts."""

    timeout_s: Seconds


class Take(Request, frozen=True, tag="take"):
    """Lines that nobody printed; who gets any holds them until `Printed` or the end."""

    limit: Limit
    timeout_s: Seconds


class Printed(Request, frozen=True, tag="printed"):
    """Lines up to this row have left through standard output; 0: none."""

    row: Row


class GetContact(Request, frozen=True, tag="contact"):
    """A person, looked up on the relay if nothing is known."""

    username: Username
    timeout_s: Seconds


class Verify(Request, frozen=True, tag="verify"):
    """Mark verified; with `number`, only if it is the safety number."""

    username: Username
    number: Digits | None


class TrustKey(Request, frozen=True, tag="trust"):
    """Take a changed key as first seen."""

    username: Username
    number: Digits


class Relay(Request, frozen=True, tag="relay"):
    """Where the relay is; what is given changes first."""

    address: Annotated[str, Meta(max_length=300)] | None = None
    pin: Annotated[str, Meta(max_length=80)] | None = None
    ca_file: Annotated[str, Meta(max_length=4096)] | None = None


AnyRequest = (
    Account
    | GetStatus
    | ListContacts
    | ListRooms
    | History
    | Send
    | Await
    | CatchUp
    | Take
    | Printed
    | GetContact
    | Verify
    | TrustKey
    | Relay
)


class Reply(Struct, frozen=True):
    """One thing found: what a command shows, and where it stands in the vault."""

    record: dict[str, Any]
    row: int = 0

    def __repr__(self) -> str:
        return f"Reply(row={self.row})"
