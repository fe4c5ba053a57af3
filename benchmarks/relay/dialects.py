"""How the peers are spoken to: logins and messages, as far as the works need them."""

from abc import ABC, abstractmethod
from struct import pack
from typing import Final

from benchmarks.relay.plans import Connection, Flag, Framing, Message, Plan, Spot, Step, Wire
from benchmarks.relay.setups import Idle, Offline, Pairs, Room, Setup, Waiting

Steps = tuple[Step, ...]


class Unsupported(Exception):
    """A peer has nothing that could be compared."""


class Dialect(ABC):
    """One peer's protocol. What it cannot do raises Unsupported."""

    wire = Wire()
    others_hear_senders = False  # whether a room's other senders get a message too

    def plan(self, setup: Setup) -> Plan:
        """What the generator does for a setup."""
        match setup:
            case Room():
                return Plan(self.wire, self._room(setup))
            case Pairs():
                return Plan(self.wire, self._pairs(setup))
            case Offline():
                return Plan(self.offline_wire(), self._offline(setup))
            case Idle():
                return Plan(
                    self.wire, tuple(Connection(self.login(at)) for at in range(setup.clients))
                )
            case Waiting():
                raise Unsupported

    @abstractmethod
    def login(self, number: int) -> Steps:
        """Come in as somebody."""

    def enter(self, room: int, sends: bool) -> Steps:
        """Become a reader, or a sender, of a room."""
        raise Unsupported

    def post(self, room: int, body_bytes: int) -> Message:
        """Say something to a room."""
        raise Unsupported

    def listen(self, number: int) -> Steps:
        """Take what is for one alone, and acknowledge it."""
        raise Unsupported

    def tell(self, number: int, body_bytes: int) -> Message:
        """Say something to one, and be told that it arrived."""
        raise Unsupported

    def offline_wire(self) -> Wire:
        """How it is told that something was kept."""
        raise Unsupported

    def before_keeping(self, number: int) -> Steps:
        """What a sender does first."""
        return ()

    def keep(self, number: int, body_bytes: int) -> Message:
        """Leave something for one who is away."""
        raise Unsupported

    def _room(self, setup: Room) -> tuple[Connection, ...]:
        everybody = setup.members + setup.senders
        fanout = setup.members + (setup.senders - 1 if self.others_hear_senders else 0)
        connections: list[Connection] = []
        for room in range(setup.rooms):
            for at in range(everybody):
                sends = at >= setup.members
                steps = self.login(room * everybody + at) + self.enter(room, sends)
                if sends:
                    message = self.post(room, setup.body_bytes)
                    connections.append(
                        Connection(steps, Flag.SENDS, fanout=fanout, message=message)
                    )
                else:
                    connections.append(Connection(steps, Flag.RECEIVES))
        return tuple(connections)

    def _pairs(self, setup: Pairs) -> tuple[Connection, ...]:
        reads = Flag.RECEIVES | Flag.ACKNOWLEDGES
        readers = [Connection(self.login(at) + self.listen(at), reads) for at in range(setup.pairs)]
        writers = [
            Connection(
                self.login(setup.pairs + at), Flag.SENDS, at, 1, self.tell(at, setup.body_bytes)
            )
            for at in range(setup.pairs)
        ]
        return (*readers, *writers)

    def _offline(self, setup: Offline) -> tuple[Connection, ...]:
        return tuple(
            Connection(
                self.login(at) + self.before_keeping(at),
                Flag.SENDS,
                fanout=0,
                message=self.keep(at, setup.body_bytes),
            )
            for at in range(setup.senders)
        )


class Mqtt(Dialect):
    """MQTT 3.1.1: QoS 0 for rooms, QoS 1 (acknowledged on both sides) for one person."""

    wire = Wire(Framing.MQTT)
    _PACKET_IDS: Final = 65_000

    def login(self, number: int) -> Steps:
        return (Step(connect_packet(f"c{number}"), b"\x20\x02\x00\x00"),)

    def enter(self, room: int, sends: bool) -> Steps:
        return () if sends else (Step(subscribe_packet(f"room/{room}", 0), b"\x90\x03"),)

    def post(self, room: int, body_bytes: int) -> Message:
        topic = _mqtt_text(f"room/{room}")
        return Message(b"\x30" + _mqtt_length(len(topic) + body_bytes) + topic, body_bytes)

    def listen(self, number: int) -> Steps:
        return (Step(subscribe_packet(f"dm/{number}", 1), b"\x90\x03"),)

    def tell(self, number: int, body_bytes: int) -> Message:
        head = _mqtt_text(f"dm/{number}") + b"\0\1"
        prefix = b"\x32" + _mqtt_length(len(head) + body_bytes) + head
        spot = Spot(len(prefix) - 2, 2, 1, self._PACKET_IDS)
        return Message(prefix, body_bytes, spots=(spot,))


def _mqtt_length(size: int) -> bytes:
    encoded = bytearray()
    while True:
        size, low = divmod(size, 128)
        encoded.append(low | (128 if size else 0))
        if not size:
            return bytes(encoded)


def _mqtt_text(text: str) -> bytes:
    return pack(">H", len(text)) + text.encode()


def connect_packet(client: str) -> bytes:
    """CONNECT with a clean session and no keep-alive."""
    variable = _mqtt_text("MQTT") + b"\x04\x02\0\0" + _mqtt_text(client)
    return b"\x10" + _mqtt_length(len(variable)) + variable


def subscribe_packet(topic: str, qos: int) -> bytes:
    """SUBSCRIBE to one topic."""
    variable = b"\0\7" + _mqtt_text(topic) + bytes([qos])
    return b"\x82" + _mqtt_length(len(variable)) + variable


class Nats(Dialect):
    """NATS for rooms, JetStream for what is kept."""

    def login(self, number: int) -> Steps:
        hello = b'CONNECT {"verbose":false,"pedantic":false,"name":"c%d","protocol":1}\r\nPING\r\n'
        return (Step(b"", b"INFO "), Step(hello % number, b"PONG\r\n"))

    def enter(self, room: int, sends: bool) -> Steps:
        return () if sends else (Step(b"SUB room.%d 1\r\nPING\r\n" % room, b"PONG\r\n"),)

    def post(self, room: int, body_bytes: int) -> Message:
        return Message(b"PUB room.%d %d\r\n" % (room, body_bytes), body_bytes, b"\r\n")

    def offline_wire(self) -> Wire:
        return Wire(ack_head=b"{")  # an acknowledgement is one JSON object

    def before_keeping(self, number: int) -> Steps:
        return (Step(b"SUB _INBOX.%d 1\r\nPING\r\n" % number, b"PONG\r\n"),)

    def keep(self, number: int, body_bytes: int) -> Message:
        prefix = b"PUB off.%d _INBOX.%d %d\r\n" % (number, number, body_bytes)
        return Message(prefix, body_bytes, b"\r\n")


class Redis(Dialect):
    """Redis: PUBLISH for rooms, a stream with appendfsync always for what is kept."""

    def login(self, number: int) -> Steps:
        return (Step(self._command(b"PING"), b"+PONG\r\n"),)

    def enter(self, room: int, sends: bool) -> Steps:
        return () if sends else (Step(self._command(b"SUBSCRIBE", b"room%d" % room), b":1\r\n"),)

    def post(self, room: int, body_bytes: int) -> Message:
        return self._filled(body_bytes, b"PUBLISH", b"room%d" % room)

    def offline_wire(self) -> Wire:
        return Wire(ack_head=b"$")  # an id, as one bulk string

    def keep(self, number: int, body_bytes: int) -> Message:
        return self._filled(body_bytes, b"XADD", b"off%d" % number, b"*", b"m")

    @staticmethod
    def _command(*words: bytes) -> bytes:
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        return b"*%d\r\n" % len(words) + b"".join(parts)

    def _filled(self, body_bytes: int, *words: bytes) -> Message:
        """A command whose last word is the body."""
        command = self._command(*words, b"")
        prefix = command[: command.rindex(b"$")] + b"$%d\r\n" % body_bytes
        return Message(prefix, body_bytes, b"\r\n")


class Irc(Dialect):
    """IRC: senders are members, and do not hear themselves."""

    others_hear_senders = True

    def login(self, number: int) -> Steps:
        who = b"NICK n%d\r\nUSER u%d 0 * :u\r\n" % (number, number)
        return (Step(who, b" 001 "), Step(b"PING :zzdone\r\n", b"zzdone"))

    def enter(self, room: int, sends: bool) -> Steps:
        return (Step(b"JOIN #room%d\r\n" % room, b" 366 "),)

    def post(self, room: int, body_bytes: int) -> Message:
        return Message(b"PRIVMSG #room%d :" % room, body_bytes, b"\r\n")


class Line(Dialect):
    """The plain broadcast server: everybody is in its one room."""

    others_hear_senders = True

    def login(self, number: int) -> Steps:
        return (Step(b"n%d\n" % number, b"welcome"),)

    def enter(self, room: int, sends: bool) -> Steps:
        return ()

    def post(self, room: int, body_bytes: int) -> Message:
        return Message(b"", body_bytes, b"\n")


class KeptLine(Line):
    """The bare loop: the same, and an acknowledgement where nobody else is there."""

    def offline_wire(self) -> Wire:
        return Wire(ack_head=b"+")

    def keep(self, number: int, body_bytes: int) -> Message:
        return self.post(0, body_bytes)


class Frames(Dialect):
    """`raw_relay`: u32 length, a letter, the rest."""

    def login(self, number: int) -> Steps:
        return ()

    def enter(self, room: int, sends: bool) -> Steps:
        return (Step(b"\0\0\0\1L" if sends else b"\0\0\0\1J", b"OK"),)

    def post(self, room: int, body_bytes: int) -> Message:
        return Message(pack(">I", 1 + body_bytes) + b"M", body_bytes)
