"""Between a frame's body and a struct: msgpack, exact (docs/protocol.md §6).

Every struct is an array whose first element is its tag. Unknown tags, missing or further fields,
wrong types and sizes are refused. Requests carry an `id`, greater than 0, that the answer repeats.
"""

import re
from typing import Final

import msgspec

from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.frames import HEADER_BYTES
from saltline.protocol.limits import FRAME_MAX_BYTES

PROTOCOL_VERSION: Final = 1
# Kept for the followed key log: refused with UNSUPPORTED_VERSION until both sides know them.
RESERVED_TAGS: Final = frozenset({"head", "leaves", "leaf_page", "revoke", "add_device"})

ClientMessage = (
    to_relay.Hello
    | to_relay.CheckInvite
    | to_relay.Register
    | to_relay.Login
    | to_relay.Publish
    | to_relay.Lookup
    | to_relay.Claim
    | to_relay.Submit
    | to_relay.Acknowledge
    | to_relay.Join
    | to_relay.Post
    | to_relay.History
    | to_relay.Who
    | to_relay.ListRooms
    | to_relay.Ping
)
RelayMessage = (
    to_client.Challenge
    | to_client.Invited
    | to_client.Welcome
    | to_client.Published
    | to_client.LookedUp
    | to_client.Claimed
    | to_client.Submitted
    | to_client.Deliver
    | to_client.CaughtUp
    | to_client.Entries
    | to_client.Joined
    | to_client.Posted
    | to_client.HistoryPage
    | to_client.Members
    | to_client.RoomList
    | to_client.Presence
    | to_client.Pong
    | to_client.Error
)

_encoder = msgspec.msgpack.Encoder()
_client_decoder: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
_relay_decoder: msgspec.msgpack.Decoder[RelayMessage] = msgspec.msgpack.Decoder(RelayMessage)
# An array's header (msgpack's three forms) and a reserved tag. What is refused is not decoded
# again: 256 KiB of one-byte elements would become 17 MB of objects.
_RESERVED_START: Final = re.compile(
    rb"(?:[\x90-\x9f]|\xdc..|\xdd....)(?:"
    + b"|".join(re.escape(_encoder.encode(tag)) for tag in sorted(RESERVED_TAGS))
    + b")",
    re.DOTALL,
)
# msgspec raises the last two besides its own.
_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def encode_message(message: ClientMessage | RelayMessage) -> bytes:
    """The body of a frame."""
    return _encoder.encode(message)


def encode_framed(message: ClientMessage | RelayMessage) -> bytes:
    """The whole frame: `encode_frame(encode_message(message))` in one step."""
    body = _encoder.encode(message)
    if len(body) > FRAME_MAX_BYTES:
        raise ValueError(f"a frame's body has at most {FRAME_MAX_BYTES} bytes, not {len(body)}")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def decode_client_message(body: bytes) -> ClientMessage:
    """Read what a client sent. Raises ProtocolError (BAD_MESSAGE, UNSUPPORTED_VERSION)."""
    try:
        return _client_decoder.decode(body)
    except _DECODE_ERRORS:
        raise _refusal(body) from None


def decode_relay_message(body: bytes) -> RelayMessage:
    """Read what a relay sent. Raises ProtocolError (BAD_MESSAGE, UNSUPPORTED_VERSION)."""
    try:
        return _relay_decoder.decode(body)
    except _DECODE_ERRORS:
        raise _refusal(body) from None


def _refusal(body: bytes) -> ProtocolError:
    """Say why, without repeating what was sent."""
    if _RESERVED_START.match(body):
        return ProtocolError(
            ErrorCode.UNSUPPORTED_VERSION,
            "That message belongs to a later version.",
        )
    return ProtocolError(ErrorCode.BAD_MESSAGE, "A message came that the protocol does not know.")
