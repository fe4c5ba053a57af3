"""The load generator counts what a relay pushes: here a relay that says what it is told to say."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import pytest
from benchmarks.relay import saltline_wire as wire
from benchmarks.relay.building import Missing, check_compiler, compile_program
from benchmarks.relay.plans import Connection, Flag, Plan, Step
from msgspec import msgpack

from saltline.protocol import to_client, to_relay
from saltline.protocol.frames import FrameDecoder, encode_frame
from saltline.protocol.messages import decode_client_message, encode_message
from saltline.server.certificates import Certificate, load_or_make
from tests.platform import platform_lacks

TIMEOUT_S: Final = 20.0
NOW_MS: Final = 1_700_000_000_000
RECORD_BYTES: Final = 16_384
MEMBER: Final = Plan(wire.ROOMS, (Connection((), Flag.RECEIVES),))
RECIPIENT: Final = Plan(wire.MAILBOXES, (Connection((), Flag.RECEIVES | Flag.ACKNOWLEDGES),))
BEFORE_BODY: Final = b"s" * 33  # of a shortened statement
SIGNATURE: Final = (b"^%016x" % 1).ljust(64, b"z")  # like a stamp, which it is not


def entry(stamp: int = 1, body_bytes: int = 40, author: int = 0) -> to_client.Pushed:
    body = (b"^%016x" % stamp).ljust(body_bytes, b"x")
    return to_client.Pushed(author, BEFORE_BODY + body, SIGNATURE)


def pushed(entries: Iterable[to_client.Pushed]) -> bytes:
    authors = tuple(to_client.Author(name, 1) for name in ("ada", "b" * 32, "carol"))
    return encode_message(to_client.Entries("#bench", 70_000, authors, tuple(entries)))


def entries(count: int, body_bytes: int = 40) -> bytes:
    return pushed(entry(1, body_bytes, number % 3) for number in range(count))


def in_pieces(data: bytes, *cuts: int) -> list[bytes]:
    """Cut at these places."""
    ends = (*cuts, len(data))
    return [data[start:end] for start, end in zip((0, *cuts), ends, strict=True)]


def numbers_in(body: bytes) -> tuple[int, ...]:
    message = decode_client_message(body)
    assert isinstance(message, to_relay.Acknowledge)
    return message.numbers


@dataclass(frozen=True)
class Generator:
    """The program, and a certificate for the relay that it calls."""

    folder: Path
    program: str
    certificate: Certificate

    def take(
        self, plan: Plan, records: Sequence[bytes], numbers: int = 0
    ) -> tuple[dict[str, Any], str, list[int]]:
        """Each piece goes as a TLS record of its own, or as several where it is longer than one.

        Returns the figures, what was printed besides, and the `numbers` that were acknowledged.
        """
        heard: list[int] = []
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            listener.settimeout(TIMEOUT_S)
            relay = threading.Thread(target=self._serve, args=(listener, records, numbers, heard))
            relay.start()
            options = {
                "--mode": "drain",
                "--port": str(listener.getsockname()[1]),
                "--target": "1000000",  # until the relay closes, then
                "--measure": str(TIMEOUT_S),
            }
            done = subprocess.run(
                [
                    self.program,
                    str(plan.write(self.folder / "plan")),
                    *(word for option in options.items() for word in option),
                ],
                capture_output=True,
                text=True,
                timeout=2 * TIMEOUT_S,
            )
            relay.join()
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr, heard

    def _serve(
        self, listener: socket.socket, records: Sequence[bytes], numbers: int, heard: list[int]
    ) -> None:
        plain, _ = listener.accept()
        plain.settimeout(TIMEOUT_S)
        with self.certificate.context.wrap_socket(plain, server_side=True) as secret:
            for record in records:
                secret.sendall(record)
            decoder = FrameDecoder()
            while len(heard) < numbers and (data := secret.recv(RECORD_BYTES)):
                for body in decoder.feed(data):
                    heard += numbers_in(body)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    if not sys.platform.startswith("linux"):
        platform_lacks("epoll, which the load generator waits with")
    try:
        check_compiler()
    except Missing as missing:
        platform_lacks(str(missing))
    folder = tmp_path_factory.mktemp("generator")
    certificate = load_or_make(folder, ("localhost",), datetime.now(UTC))
    return Generator(folder, compile_program("lg", folder), certificate)


def test_every_entry_of_a_frame_is_a_delivery(generator: Generator) -> None:
    bodies = (
        entries(1),
        encode_message(to_client.Presence("ada", True)),
        entries(3, body_bytes=300),
        encode_message(to_client.Posted(1, "#bench", 70_003)),
        entries(300),
        entries(2, body_bytes=70_000),
    )
    assert len(bodies[4]) > 2 * RECORD_BYTES

    figures, _, _ = generator.take(MEMBER, [encode_frame(body) for body in bodies])

    assert figures["delivered"] == 1 + 3 + 300 + 2
    assert (figures["acknowledged"], figures["errors"]) == (1, 0)


def test_records_may_end_anywhere(generator: Generator) -> None:
    short, long = encode_frame(entries(3)), encode_frame(entries(300))
    everywhere = [piece for cut in range(1, len(short)) for piece in in_pieces(short, cut)]
    byte_by_byte = in_pieces(short, *range(1, len(short)))
    across_frames = in_pieces(long * 3, 2, 5, 11, len(long) - 1, len(long) + 3, 2 * len(long) + 1)

    figures, _, _ = generator.take(MEMBER, [*everywhere, *byte_by_byte, *across_frames])

    assert figures["delivered"] == 3 * (len(short) - 1) + 3 + 3 * 300
    assert figures["errors"] == 0


def test_what_comes_right_behind_the_login_counts(generator: Generator) -> None:
    step = Step(b"", wire.head_of(to_client.Welcome))
    plan = Plan(wire.ROOMS, (Connection((step,), Flag.RECEIVES),))
    welcome = encode_frame(encode_message(to_client.Welcome(NOW_MS, (), 0, 0, 0, 0, bytes(16))))
    short = encode_frame(entries(3))

    figures, _, _ = generator.take(plan, [welcome + short + short[:50], short[50:]])

    assert (figures["delivered"], figures["errors"]) == (6, 0)


def test_every_entry_has_a_time_of_its_own(generator: Generator) -> None:
    now = time.monotonic_ns()
    long_ago, lately = now // 2, now // 4 * 3
    stamps = [long_ago if number % 3 == 0 else lately for number in range(300)]

    figures, _, _ = generator.take(MEMBER, [encode_frame(pushed(map(entry, stamps)))])

    passed_us = (time.monotonic_ns() - now) / 1e3
    for figure, stamp in (("p50_us", lately), ("p99_us", long_ago), ("max_us", long_ago)):
        taken_us = (now - stamp) / 1e3
        assert taken_us * 0.98 <= figures[figure] <= (taken_us + passed_us) * 1.02


def test_what_ends_too_early_is_an_error(generator: Generator) -> None:
    three = [entry(), entry(author=1), entry(author=2)]
    body = pushed(three)
    sizes = [len(msgpack.encode(each)) for each in three]
    ends = [len(body) - sum(sizes) + done for done in accumulate(sizes)]
    cuts = range(len(wire.ROOMS.delivery_head), len(body))

    figures, said, _ = generator.take(MEMBER, [encode_frame(body[:cut]) for cut in cuts])

    assert ends[-1] == len(body)
    assert figures["errors"] == len(cuts)
    assert figures["delivered"] == sum(end <= cut for cut in cuts for end in ends)
    assert said.count("lg: connection 0 got what cannot be read: ..entries") == 3


def test_what_is_something_else_is_an_error(generator: Generator) -> None:
    head = ("entries", "#bench", 1, [["ada", 1]])
    right = [0, BEFORE_BODY, SIGNATURE]
    bodies = [
        entries(3) + b"\0",  # one byte too many
        msgpack.encode((*head, [[0, BEFORE_BODY], SIGNATURE])),
        msgpack.encode((*head, [right, [0, BEFORE_BODY.decode(), SIGNATURE]])),
        msgpack.encode((*head, [right, [0, BEFORE_BODY, None]])),
        msgpack.encode((*head, [right, ["0", BEFORE_BODY, SIGNATURE]])),
        msgpack.encode((*head, BEFORE_BODY)),
        msgpack.encode(("entries", "#bench", 1.5, [["ada", 1]], [right])),
        msgpack.encode((*head, []))[:-1] + b"\xdd\xff\xff\xff\xff" + msgpack.encode(right),
        msgpack.encode((*head, []))[:-1] + b"\x91\x93\0\xc6\xff\xff\xff\xff",
        wire.ROOMS.delivery_head + b"\xdd\xff\xff\xff\xff" * 20,
    ]

    figures, _, _ = generator.take(MEMBER, [encode_frame(body) for body in bodies])

    assert figures["errors"] == len(bodies)
    assert figures["delivered"] == 3 + 3 * 1 + 1


def test_an_envelope_is_one_delivery_and_is_acknowledged(generator: Generator) -> None:
    numbers = [1, 127, 128, 300, 70_000, 2**40]
    delivered = [encode_message(to_client.Deliver(each, NOW_MS, b"^" * 400)) for each in numbers]

    figures, _, heard = generator.take(RECIPIENT, [*map(encode_frame, delivered)], len(numbers))

    assert (figures["delivered"], figures["errors"]) == (len(numbers), 0)
    assert heard == numbers
