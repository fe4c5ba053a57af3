"""Saltline's frames as templates for the generator, all cut from what its own encoders write."""

from typing import Final

import msgspec

from benchmarks.relay.plans import Framing, Message, SignStep, Spot, Step, Wire
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, login_payload
from saltline.protocol import to_client, to_relay
from saltline.protocol.content import RoomKind
from saltline.protocol.frames import encode_frame
from saltline.protocol.limits import PING_INTERVAL_S
from saltline.protocol.messages import ClientMessage, RelayMessage, encode_message

HELLO: Final = to_relay.Hello(versions=(1,), features=(), agent="bench")
# Byte strings and numbers that stand for what is put in their place.
_SIGNATURE: Final = b"<signature>".ljust(64, b".")
_NUMBER: Final = b"<number>"
_BODY: Final = b"<body>"
_REQUEST: Final = 0x7F5A_5A01  # four bytes wide in msgpack, with room to grow, and like no time
_CONVERSATION_BYTES: Final = 64  # the hash of the conversation, and the spki's


def head_of(kind: type[ClientMessage | RelayMessage]) -> bytes:
    """The first bytes of every message of a type: the array's header and the tag."""
    tag = kind.__struct_config__.tag
    body = msgspec.msgpack.encode((tag, *(None for _ in kind.__struct_fields__)))
    return body[: -len(kind.__struct_fields__)]


def frame_of(message: ClientMessage) -> bytes:
    return encode_frame(encode_message(message))


def _cut(whole: bytes, marker: bytes) -> tuple[bytes, bytes]:
    before, found, after = whole.partition(marker)
    if not found or marker in after:
        raise ValueError("a marker is once in what was encoded")
    return before, after


def _wire(
    delivery: type[RelayMessage],
    acknowledgement: type[RelayMessage],
    *,
    holds_entries: bool = False,
) -> Wire:
    before, after = _cut(encode_message(to_relay.Acknowledge((7,) * 3, b"")), b"\x93\7\7\7")
    return Wire(
        framing=Framing.SALTLINE,
        delivery_head=head_of(delivery),
        holds_entries=holds_entries,
        ack_head=head_of(acknowledgement),
        error_head=head_of(to_client.Error),
        reply_before=before,
        reply_after=after,
        ping_ms=int(PING_INTERVAL_S * 1000),
        ping=frame_of(to_relay.Ping(1)),
    )


ROOMS: Final = _wire(to_client.Entries, to_client.Posted, holds_entries=True)
MAILBOXES: Final = _wire(to_client.Deliver, to_client.Submitted)


def login_step(relay_id: bytes, username: str, device: int, seed: bytes, spki: bytes) -> SignStep:
    """Hello, challenge, login, welcome."""
    hello = encode_message(HELLO)
    payload = login_payload(relay_id, username, device, hello, b"", spki)
    login = to_relay.Login(username, device, _SIGNATURE, (), ())
    before, after = _cut(frame_of(login), _SIGNATURE)
    return SignStep(
        send=encode_frame(hello),
        wait=head_of(to_client.Welcome),
        seed=seed,
        payload=payload[:-_CONVERSATION_BYTES],
        spki=spki,
        before=before,
        after=after,
    )


def caught_up_step() -> Step:
    """Wait until nothing waits any more in the mailbox."""
    return Step(b"", head_of(to_client.CaughtUp))


def _spots(frame: bytes, *markers: bytes) -> tuple[Spot, ...]:
    offsets = [len(_cut(frame, marker)[0]) for marker in markers]
    return tuple(
        Spot(offset, len(marker), int.from_bytes(marker))
        for offset, marker in zip(offsets, markers, strict=True)
    )


def _message(request: ClientMessage, body_bytes: int, *numbers: bytes) -> Message:
    """A request whose body, made of `_BODY`, is filled by the generator."""
    frame = frame_of(request)
    body = _BODY.ljust(body_bytes, b"x")
    prefix, suffix = _cut(frame, body)
    return Message(prefix, body_bytes, suffix, _spots(frame, *numbers))


def post(room: str, body_bytes: int, now_ms: int, salt: bytes) -> Message:
    """A post, each with its own message id and a later time than the one before.

    `salt`, 8 bytes, keeps the ids of two authors apart.
    The relay does not check the signature, members do: here it is 64 bytes that say nothing.
    """
    statement = RoomStatement(
        kind=RoomKind.TEXT,
        message_id=_NUMBER + salt,
        time_ms=now_ms,
        seen=0,
        seen_hash=EMPTY_HISTORY,
        body=_BODY.ljust(body_bytes, b"x"),
    )
    request = to_relay.Post(_REQUEST, room, statement.encode(), b"\xaa" * 64)
    return _message(request, body_bytes, _REQUEST.to_bytes(4), _NUMBER, now_ms.to_bytes(8))


def submit(username: str, device: int, body_bytes: int) -> Message:
    """An envelope of this size for a device's mailbox."""
    envelope = _BODY.ljust(body_bytes, b"x")
    request = to_relay.Submit(_REQUEST, username, device, envelope, b"")
    return _message(request, body_bytes, _REQUEST.to_bytes(4))
