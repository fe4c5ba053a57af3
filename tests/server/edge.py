"""A relay's edge around a core that does what it is told, and raw clients that talk to it."""

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from saltline.protocol.errors import ProtocolError
from saltline.protocol.frames import FrameDecoder, encode_frame
from saltline.protocol.names import RelayAddress
from saltline.server.administration import AdminRequest, Refused
from saltline.server.config import Config, Deadlines
from saltline.server.core import RelayCore
from saltline.server.effects import (
    Answer,
    Broadcast,
    Close,
    Effect,
    Log,
    Pause,
    Persist,
    Promote,
    Resume,
    Send,
    Stop,
)
from saltline.server.relay import Relay
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.interface import Done, Operation, Outcome, StoreError
from saltline.server.store.operations import ReadTotals

TIMEOUT_S = 20.0
QUICK = Deadlines(handshake_s=10.0, frame_s=30.0, close_s=5.0, stop_s=5.0, check_every_s=0.02)


@dataclass
class ScriptedCore(RelayCore):
    """Does what the first word of a request says, and remembers what happened."""

    settings: Settings
    log_key: object
    statement: CertificateStatement
    random: Callable[[int], bytes]
    happened: list[tuple[Any, ...]] = field(default_factory=list)
    open: dict[int, CertificateStatement] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    ticks: int = 0
    tickers: set[str] = field(default_factory=set)
    is_stopping: bool = False

    def opened(
        self,
        connection: int,
        address: str,
        now_ms: int,
        certificate: CertificateStatement | None = None,
    ) -> list[Effect]:
        assert certificate is not None
        self.happened.append(("opened", connection, address))
        self.open[connection] = certificate
        return []

    def set_date(self, date_ms: int, now_ms: int) -> None:
        pass

    def received(self, connection: int, bodies: Sequence[bytes], now_ms: int) -> list[Effect]:
        self.happened.append(("received", connection, len(bodies)))
        return [effect for body in bodies for effect in self._do(connection, body)]

    def _do(self, connection: int, body: bytes) -> Iterable[Effect]:
        word, _, rest = body.partition(b" ")
        match word:
            case b"echo":
                yield Send(connection, encode_frame(rest))
            case b"flood":  # COUNT frames of SIZE bytes, then the word "end"
                count, size = map(int, rest.split())
                yield from [Send(connection, encode_frame(b"x" * size))] * count
                yield Send(connection, encode_frame(b"end"))
            case b"all":
                yield Broadcast(tuple(self.open), encode_frame(rest))
            case b"promote":
                yield Promote(connection)
                yield Send(connection, encode_frame(b"promoted"))
            case b"pause":
                yield Pause(connection)
            case b"resume":
                yield Resume(int(rest))
            case b"close":
                yield Send(connection, encode_frame(b"bye"))
                yield Close(connection, "asked")
            case b"dismiss":
                for number in tuple(self.open):
                    yield Send(number, encode_frame(b"bye"))
                    yield Close(number, "dismissed")
            case b"leave":
                yield Close(connection, "asked")
            case b"store":
                token = len(self.tokens) + 1
                self.tokens[token] = connection
                yield Persist(ReadTotals(), token)
            case b"log":
                yield Log(40, rest.decode())
            case b"stop":
                yield Stop("The disk failed.")
            case b"raise":
                raise KeyError("a secret")
            case b"spki":
                yield Send(connection, encode_frame(self.open[connection].spki_hash))

    def broken(self, connection: int, error: ProtocolError, now_ms: int) -> list[Effect]:
        self.happened.append(("broken", connection, error.code))
        self.open.pop(connection, None)
        return [
            Send(connection, encode_frame(f"{error.code} {error.detail}".encode())),
            Close(connection, "broken"),
        ]

    def closed(self, connection: int, now_ms: int) -> list[Effect]:
        self.happened.append(("closed", connection))
        self.open.pop(connection, None)
        return []

    def congested(self, connection: int, is_congested: bool, now_ms: int) -> list[Effect]:
        self.happened.append(("congested", connection, is_congested))
        return []

    def taking(self, connections: Sequence[int], now_ms: int) -> list[Effect]:
        self.happened += [("taking", connection) for connection in connections]
        return []

    def stored_all(
        self, results: Sequence[tuple[int, Outcome | StoreError]], now_ms: int
    ) -> list[Effect]:
        self.happened.append(("stored", [token for token, _ in results]))
        effects: list[Effect] = []
        for token, outcome in results:
            if isinstance(outcome, StoreError) and outcome.fatal:
                effects.append(Stop(outcome.detail))
            else:
                frame = encode_frame(b"stored %d" % token)
                effects.append(Send(self.tokens.pop(token), frame))
        return effects + self._farewell()

    def tick(self, now_ms: int) -> list[Effect]:
        self.ticks += 1
        self.tickers.add(threading.current_thread().name)
        return []

    def certificate_changed(self, certificate: CertificateStatement) -> None:
        self.statement = certificate

    def settings_changed(self, settings: Settings) -> None:
        self.settings = settings

    def stop(self, now_ms: int) -> list[Effect]:
        self.is_stopping = True
        return self._farewell()

    def _farewell(self) -> list[Effect]:
        if not self.is_stopping or self.tokens:
            return []
        return [Close(connection, "stopping") for connection in self.open]

    @property
    def idle(self) -> bool:
        return not self.tokens

    @property
    def logins(self) -> int:
        return 0

    def admin(self, ticket: int, request: AdminRequest, now_ms: int) -> list[Effect]:
        self.happened.append(("admin", request))
        return [Answer(ticket, Refused(code="bad_name", detail=type(request).__name__))]

    def saw(self, *event: object) -> bool:
        """Whether this happened; fewer words than an event has match its beginning."""
        return any(each[: len(event)] == event for each in list(self.happened))


class MemoryStore:
    """Stores nothing, when the test lets it."""

    def __init__(self) -> None:
        self.may_run = threading.Event()
        self.may_run.set()
        self.groups: list[int] = []
        self.is_closed = False

    def run(self, operations: Sequence[Operation]) -> list[Outcome | StoreError]:
        assert self.may_run.wait(TIMEOUT_S)
        self.groups.append(len(operations))
        return [Done() for _ in operations]

    def maintain(self, *, nobody_waits: bool = False) -> StoreError | None:
        return None

    def close(self) -> None:
        self.is_closed = True


class ScriptedRelay(Relay):
    """A relay on a free port of 127.0.0.1 with a scripted core and no disk behind it."""

    def __init__(self, config: Config) -> None:
        self.cores: list[ScriptedCore] = []
        self.store = MemoryStore()

        def make_core(*arguments: Any) -> ScriptedCore:
            self.cores.append(ScriptedCore(*arguments))
            return self.cores[-1]

        super().__init__(config, open_store=lambda *_: self.store, make_core=make_core)

    @property
    def core(self) -> ScriptedCore:
        return self.cores[0]

    def connect(self, **options: Any) -> "RawClient":
        return RawClient(self.address.port, **options)


def config_in(folder: Path, **changes: Any) -> Config:
    changes = {"deadlines": QUICK, **changes}
    return Config(listen=RelayAddress("127.0.0.1", 0), data=folder / "data", **changes)


class _Closing(ssl.SSLSocket):
    """Closes what the relay reset before TLS began, which Python's own leaves open."""

    def recv(self, *arguments: int) -> bytes:
        try:
            return super().recv(*arguments)
        except OSError:
            if not hasattr(self, "_connected"):  # it is being made
                self.close()
            raise


def client_context() -> ssl.SSLContext:
    """TLS without any check: the tests look at the certificate themselves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _Closing
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


CONTEXT = client_context()


class CutOff(AssertionError):
    """The relay ended the connection: unlike a wrong answer, this may be tried again."""


class RawClient:
    """Sends and receives frames, right ones and wrong ones."""

    def __init__(
        self,
        port: int,
        *,
        context: ssl.SSLContext = CONTEXT,
        receive_buffer: int = 0,
        source: str = "127.0.0.1",
    ) -> None:
        raw = socket.socket()
        raw.settimeout(TIMEOUT_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the messenger does
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            if source != "127.0.0.1":
                raw.bind((source, 0))
            raw.connect(("127.0.0.1", port))
            self.sock = context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        self._decoder = FrameDecoder(2**31)
        self._bodies: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *bodies: bytes) -> None:
        self.sock.sendall(b"".join(map(encode_frame, bodies)))

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self) -> bytes:
        while not self._bodies:
            self._feed(self.sock.recv(65536))
        return self._bodies.pop(0)

    def receive_all(self) -> list[bytes]:
        """What came by now. The socket must not block."""
        with suppress(ssl.SSLWantReadError):
            while True:
                self._feed(self.sock.recv(65536))
        bodies, self._bodies = self._bodies, []
        return bodies

    def _feed(self, data: bytes) -> None:
        if not data:
            raise CutOff("the relay closed the connection")
        self._bodies += self._decoder.feed(data)

    def ask(self, body: bytes) -> bytes:
        self.send(body)
        return self.receive()

    def is_closed_by_relay(self) -> bool:
        """Wait for the end; whatever still comes first is a failure."""
        assert not self._bodies
        try:
            return self.sock.recv(1) == b""
        except (ConnectionResetError, ssl.SSLEOFError):
            return True


def reset(sock: socket.socket) -> None:
    """Close with a reset, as a program does that is killed with bytes unread."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))
