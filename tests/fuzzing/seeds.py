"""Honest inputs, from which the fuzzer begins."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from saltline.client import requests
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement
from saltline.protocol.content import Content, Kind, Receipt, encode_content, encode_receipt
from saltline.protocol.frames import encode_frame
from saltline.protocol.messages import RESERVED_TAGS
from tests.fuzzing.layout_targets import honest_parts, life
from tests.fuzzing.session_targets import introduction
from tests.protocol.wire_values import CLIENT_STRUCTS, RELAY_STRUCTS, good, largest, struct_type

FRAMES: Final = (
    b"\x00\x07\x00\x01\x02\x03" + encode_frame(b"a") + encode_frame(b"bcd") + b"\0\0\0\x08half",
    b"\xff\xff\xff\xff\xff\xff" + encode_frame(bytes(300)) * 3,
    b"\x00\x00\x00\x00\x00\x00" + encode_frame(b"a") * 9 + bytes(4),
    b"\x00\x03\x04\x00\x09\x00" + encode_frame(b"ab") + b"\0\0\0\x09",
)

TEXTS: Final = tuple(
    flag + text.encode("utf-8", "surrogatepass")
    for flag in (b"\0", b"\xff")
    for text in (
        "hello\r\nyou\tthere",
        "\x1b[2J\x9b31m\x07",
        "\u202e\u2066\u200b\ufeff",
        "e\u0301\u0301\u0301\u0301\u0301",
        "\u1100\u1161\u11a8 \u0e01\u0e49",
        "👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f 1\ufe0f\u20e3 👍🏽",
        "ب\u200cب क\u094d\u200dष",
        "\ud83d\ue000\ufffe\U000e0041\u2800",
    )
)

NAMES: Final = (
    b"alice", b"al_ice-1", b"adm1n", b"#lobby", b"@bob", b"#", b"@", b"Alice", b"a" * 33,
    b"relay.example:7443", b"[::1]:7443", b"::1", b"[fe80::1%eth0]", b"fe80::1%a]b", b"10.0.0.1:0",
    b"host:99999", b"host:0", b"[::]:00", b"sha256:" + b"0f" * 32, b"k7q2-o1il-xxxx", b"\xff\xfe",
)  # fmt: skip

CONFIGURATIONS: Final = (
    b'listen = "0.0.0.0:7443"\ndata = "/srv/x"\nworkers = 2\nflush_interval_ms = 2.0\n',
    b'certificate = "a.pem"\nkey = "b.pem"\nregistration = "invite"\nlog_level = "debug"\n',
    b"[limits]\nconnections_max = 20_000\nrooms_max = 0x10\n[deadlines]\nframe_s = 1e1\n",
    b'data = "~/x"\n', b'data = "~nobody-here/x"\n', b"workers = nan\n", b"workers = -inf\n",
    b"workers = 1979-05-27T07:32:00Z\n", b'a.b.c = [1, {x = """y"""}]\n[[d]]\n', b"\xff\n",
    b"workers = " + b"9" * 5000, b"a = " + b"[" * 400,
    b'"\\u001b[2J\\u202e" = 1\n', b'[limits]\n"\\u009b" = 1\n', b'log_level = "\\u202e"\n',
)  # fmt: skip

REQUESTS: Final = tuple(
    msgspec.json.encode(request)
    for request in (
        requests.Account(),
        requests.GetStatus(1.5),
        requests.ListContacts(),
        requests.ListRooms(0),
        requests.History("@bob", 10, "word"),
        requests.Send("@bob", 'a "text"\n\u2028', bytes(16)),
        requests.Await(1, 4, 2.0),
        requests.CatchUp(1),
        requests.Take(1, 1),
        requests.Printed(2**62),
        requests.GetContact("bob", 1),
        requests.Verify("bob", None),
        requests.TrustKey("bob", "12345"),
        requests.Relay("relay.example", "sha256:00", None),
    )
)


def _bodies(structs: Sequence[type[msgspec.Struct]]) -> list[bytes]:
    kinds = [struct_type(struct) for struct in structs]
    arrays: list[Any] = [good(kind) for kind in kinds]
    # Lists of one element, and texts and bytes of full length where that is short.
    longest = [msgspec.msgpack.encode(largest(kind, 1)) for kind in kinds]
    encoded = [msgspec.msgpack.encode(array) for array in arrays]
    encoded += [body for body in longest if len(body) <= 1024]
    return [*encoded, *(msgspec.msgpack.encode([tag]) for tag in sorted(RESERVED_TAGS))]


def client_bodies() -> list[bytes]:
    """Each message to a relay, as small and as large as it may be."""
    return _bodies(CLIENT_STRUCTS)


def relay_bodies() -> list[bytes]:
    """Each message to a client."""
    return _bodies(RELAY_STRUCTS)


def contents() -> list[bytes]:
    """Texts, receipts, and what a later version may send."""
    receipt = encode_receipt(Receipt((bytes(16), b"\1" * 16), True))
    bodies = [(Kind.TEXT, "é".encode()), (Kind.TEXT, b"\xff"), (Kind.RECEIPT, receipt), (9, b"?")]
    return [
        encode_content(Content(kind, bytes(16), "bob", 1, 2**62, b"", body))
        for kind, body in bodies
    ]


def layouts() -> list[bytes]:
    """Each layout, after the number by which the target chooses it."""
    statement = RoomStatement(1, bytes(16), 2**62, 0, EMPTY_HISTORY, b"text")
    identity, _, *prekeys = honest_parts()[0]
    bob, envelope = introduction()
    opened = bob.opens(envelope)
    found = [(0, statement.encode()), *((1, entry) for entry in life()), (2, identity)]
    found += [(3, prekey) for prekey in prekeys]
    found += [(4, opened.setup), (5, opened.header_bytes)]
    return [bytes((number,)) + data for number, data in found]


def keylogs() -> list[bytes]:
    """The truth, its beginnings, each entry signed anew by each signer; a time or signature off."""
    whole = [bytes((number, 0, 0)) for number in range(5)]
    signed = [bytes((number, 0, 1, signer)) for number in range(5) for signer in range(4)]
    spoilt = [bytes((0, 1, at >> 8, at & 255, 5, 0)) for at in (68, 300)]
    return [*(b"".join(whole[:count]) for count in range(6)), *signed, *spoilt]


def scripts() -> list[bytes]:
    """Nothing is spoilt; one part is, in each way; several are."""
    ways = [bytes((first, second, 0, 9, 1, 7, 3)) for first in range(5) for second in range(6)]
    return [b"", bytes(16), *ways, b"".join(ways)]


def bundles() -> list[bytes]:
    """The honest one at several times, then spoilt ones."""
    return [*(bytes(5) + bytes((day,)) for day in (128, 140, 127, 120, 255)), *scripts()]


def envelopes() -> list[bytes]:
    """As sealed and as plaintexts."""
    bob, envelope = introduction()
    opened = bob.opens(envelope)
    header = b"\x01" + bytes(4) + len(opened.header_bytes).to_bytes(4, "big") + opened.header_bytes
    boxes = [b"\3" + header + bytes(32 + size) for size in (40, 39, 0)]
    return [bytes(200), *boxes, *scripts()]
