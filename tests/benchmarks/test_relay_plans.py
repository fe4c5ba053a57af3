"""Plans of the load generator: what is written is what was meant, and a relay takes it."""

from pathlib import Path

import pytest
from benchmarks.relay import dialects
from benchmarks.relay import saltline_wire as wire
from benchmarks.relay.__main__ import in_turn, shared, split
from benchmarks.relay.building import Missing
from benchmarks.relay.peers import Mosquitto
from benchmarks.relay.plans import (
    MAGIC,
    Connection,
    Flag,
    Framing,
    Message,
    Plan,
    SignStep,
    Spot,
    Step,
    StepKind,
    Wire,
)
from benchmarks.relay.setups import Pairs, Room
from benchmarks.relay.world import World

from saltline.crypto.encoding import Reader
from saltline.crypto.primitives import ed25519_from_seed, ed25519_sign, sha256
from saltline.crypto.signatures import Identity, RoomStatement
from saltline.protocol import to_client, to_relay
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.messages import decode_client_message, encode_message
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.store.sqlite import SqliteStore
from tests.server.person import Person
from tests.server.relay_harness import MemoryRelay

NOW_MS = 1_700_000_000_000
LARGE = 10_000


def filled(message: Message, sent: int) -> bytes:
    """A message as the generator sends it, after `sent` others."""
    body = (b"^" + b"%016x" % 77).ljust(message.body_bytes, b"x")
    data = bytearray(message.prefix + body + message.suffix)
    for spot in message.spots:
        count = sent % spot.modulo if spot.modulo else sent
        data[spot.offset : spot.offset + spot.width] = (spot.base + count).to_bytes(spot.width)
    return bytes(data)


def only_message(frame: bytes) -> object:
    (body,) = FrameDecoder().feed(frame)
    return decode_client_message(body)


# --- the file ------------------------------------------------------------------------------------


def take_message(reader: Reader) -> Message:
    prefix, body_bytes, suffix = reader.lp(LARGE), reader.u32(), reader.lp(LARGE)
    spots = tuple(
        Spot(reader.u32(), reader.u32(), reader.u64(), reader.u64()) for _ in range(reader.u32())
    )
    return Message(prefix, body_bytes, suffix, spots)


def take_step(reader: Reader) -> Step | SignStep:
    kind = StepKind(reader.u32())
    send, wait = reader.lp(LARGE), reader.lp(LARGE)
    if kind is StepKind.SEND:
        return Step(send, wait)
    return SignStep(send, wait, *(reader.lp(LARGE) for _ in range(5)))


def take_connection(reader: Reader) -> Connection:
    flags, peer, fanout = Flag(reader.u32()), reader.u32(), reader.u32()
    steps = tuple(take_step(reader) for _ in range(reader.u32()))
    message = take_message(reader) if flags & Flag.SENDS else None
    return Connection(steps, flags, -1 if peer == 0xFFFF_FFFF else peer, fanout, message)


def decode(data: bytes) -> Plan:
    """A plan file, read as `load/plan.c` does."""
    reader = Reader(data)
    reader.expect(MAGIC)
    framing = Framing(reader.u32())
    delivery, holds_entries = reader.lp(LARGE), bool(reader.u32())
    ack, error, before, after = (reader.lp(LARGE) for _ in range(4))
    ping_ms, ping = reader.u32(), reader.lp(LARGE)
    found = Wire(framing, delivery, holds_entries, ack, error, before, after, ping_ms, ping)
    connections = tuple(take_connection(reader) for _ in range(reader.u32()))
    reader.finish()
    return Plan(found, connections)


def test_a_plan_holds_what_was_meant(tmp_path: Path) -> None:
    sign = wire.login_step(b"r" * 32, "ada", 1, b"s" * 32, b"k" * 32)
    sender = Connection((sign,), Flag.SENDS, 0, 2, wire.submit("bob", 1, 200))
    reader = Connection((sign, Step(b"", b"caught_up")), Flag.RECEIVES | Flag.ACKNOWLEDGES)
    plan = Plan(wire.MAILBOXES, (reader, sender, Connection(())))

    path = plan.write(tmp_path / "plan")

    assert decode(path.read_bytes()) == plan
    assert decode(Plan(wire.ROOMS, ()).encode()) == Plan(wire.ROOMS, ())
    assert path.stat().st_mode & 0o777 == 0o600
    assert "ssss" not in repr(plan)


def test_a_plan_is_refused_that_means_nothing() -> None:
    with pytest.raises(ValueError, match="17 bytes"):
        Message(b"", 16).encode()
    with pytest.raises(ValueError, match="nobody else"):
        Connection((), Flag.SENDS).encode()
    with pytest.raises(ValueError, match="nobody else"):
        Connection((), message=Message(b"", 17)).encode()


def test_several_generators_share_connections_and_a_rate() -> None:
    plan = Plan(Wire(), tuple(Connection((), fanout=number) for number in range(10)))

    assert [len(part.connections) for part in split(plan, 4)] == [4, 4, 2]
    assert sum((part.connections for part in split(plan, 4)), ()) == plan.connections
    assert split(plan, 10) == [plan]
    assert shared(("--mode", "rate", "--rate", 100), 2) == ("--mode", "rate", "--rate", 50)
    assert shared(("--mode", "idle"), 2) == ("--mode", "idle")


def test_another_peer_begins_in_every_run() -> None:
    assert [in_turn(("a", "b", "c"), run)[0] for run in range(4)] == ["a", "b", "c", "a"]
    assert set(in_turn(("a", "b", "c"), 2)) == {"a", "b", "c"}


# --- Saltline ------------------------------------------------------------------------------------


def test_each_post_is_new_and_later() -> None:
    message = wire.post("#room", 200, NOW_MS, b"saltsalt")
    posts = [only_message(filled(message, sent)) for sent in (0, 1, 300)]

    statements = []
    for post in posts:
        assert isinstance(post, to_relay.Post)
        assert post.room == "#room"
        statements.append(RoomStatement.decode(post.statement, 200))
    assert len({statement.message_id for statement in statements}) == 3
    assert [statement.time_ms - NOW_MS for statement in statements] == [0, 1, 300]
    assert {len(statement.body) for statement in statements} == {200}
    assert statements[0].body.startswith(b"^000000000000004d")


def test_each_envelope_has_a_request_of_its_own() -> None:
    message = wire.submit("bob", 3, 3_600)
    first, later = (only_message(filled(message, sent)) for sent in (0, 70_000))

    assert isinstance(first, to_relay.Submit) and isinstance(later, to_relay.Submit)
    assert later.id - first.id == 70_000
    assert (first.username, first.device, len(first.envelope)) == ("bob", 3, 3_600)


def test_what_comes_in_is_known_by_its_first_bytes() -> None:
    deliver = encode_message(to_client.Deliver(7, NOW_MS, b"sealed"))
    assert deliver.startswith(wire.MAILBOXES.delivery_head + b"\x07")
    assert encode_message(to_client.Submitted(9)).startswith(wire.MAILBOXES.ack_head)
    error = to_client.Error(1, "rate_limited", "Wait.", 5)
    assert encode_message(error).startswith(wire.MAILBOXES.error_head)
    assert encode_message(to_client.Posted(1, "#room", 2)).startswith(wire.ROOMS.ack_head)
    pushed = to_client.Pushed(0, b"statement", b"s" * 64)
    entries = to_client.Entries("#room", 2, (to_client.Author("ada", 1),), (pushed,))
    assert encode_message(entries).startswith(wire.ROOMS.delivery_head + b"\xa5#room\x02")
    assert wire.ROOMS.holds_entries and not wire.MAILBOXES.holds_entries
    heads = {wire.ROOMS.delivery_head, wire.ROOMS.ack_head, wire.MAILBOXES.delivery_head}
    assert len(heads) == 3


def test_numbers_between_the_two_parts_are_an_acknowledgement() -> None:
    numbers = b"\xdc\x00\x02" + b"\xcf" + (5).to_bytes(8) + b"\xcf" + (6).to_bytes(8)
    body = wire.MAILBOXES.reply_before + numbers + wire.MAILBOXES.reply_after

    assert decode_client_message(body) == to_relay.Acknowledge((5, 6), b"")


def test_a_relay_lets_in_who_signs_as_the_plan_says() -> None:
    relay = MemoryRelay()
    person = Person(relay, "ada")
    person.register()
    seed = person.keys.to_bytes()[-64:-32]
    spki = relay.certificate.spki_hash
    step = wire.login_step(relay.log_key.relay_id, "ada", 1, seed, spki)

    connection = relay.connect()
    connection.send_bodies(*FrameDecoder().feed(step.send))
    challenge = connection.bodies[-1]
    framed = len(challenge).to_bytes(4) + challenge
    payload = step.payload + sha256(step.send + framed) + step.spki
    login = step.before + ed25519_sign(step.seed, payload) + step.after
    connection.take()
    connection.send_bodies(*FrameDecoder().feed(login))

    assert step.wait in connection.bodies[1]
    assert isinstance(connection.take()[0], to_client.Welcome)


def test_a_world_is_on_the_disk_as_if_it_had_grown(tmp_path: Path) -> None:
    with World(tmp_path / "data") as world:
        members = world.add_members(3)
        world.join("#bench", members)
        world.fill_mailbox(members[1], 4, 200)
        relay_id, database = world.relay_id, world.folder.database

    store = SqliteStore(database, relay_id)
    begun, totals, mailbox = store.run(
        [
            ask.BeginSession(members[0].account, members[0].mailbox, (), ()),
            ask.ReadTotals(),
            ask.ReadMailbox(members[1].mailbox, 0, 100, 10**6),
        ]
    )
    store.close()

    assert isinstance(begun, told.SessionBegun)
    assert [(room.room, room.last, room.members) for room in begun.rooms] == [("#bench", 3, 3)]
    assert isinstance(totals, told.TotalsRead)
    assert (totals.accounts, totals.waiting) == (3, 4)
    assert isinstance(mailbox, told.MailboxRead)
    assert [len(waiting.envelope) for waiting in mailbox.envelopes] == [200] * 4
    assert len({member.seed for member in members}) == 3
    assert members[0].seed.hex() not in repr(members[0])


def test_a_member_has_the_key_that_the_relay_knows(tmp_path: Path) -> None:
    with World(tmp_path / "data") as world:
        _, member = world.add_members(2)
        relay_id, database = world.relay_id, world.folder.database

    store = SqliteStore(database, relay_id)
    (found,) = store.run([ask.FindDevice(member.username, 1)])
    store.close()

    assert isinstance(found, told.DeviceFound)
    assert Identity.decode(found.identity).signing_key == ed25519_from_seed(member.seed)
    assert (found.account, found.mailbox) == (member.account, member.mailbox)


# --- the peers -----------------------------------------------------------------------------------


def test_a_packet_of_mqtt_says_how_long_it_is() -> None:
    told_to = filled(dialects.Mqtt().tell(3, 200), 5)
    length = (told_to[1] & 0x7F) | told_to[2] << 7

    assert told_to[0] == 0x32
    assert length == len(told_to) - 3
    assert told_to[3:9] == b"\0\4dm/3"
    assert told_to[9:11] == b"\0\6"  # the sixth packet id
    assert filled(dialects.Mqtt().tell(3, 200), 65_000)[9:11] == b"\0\1"


def test_a_command_of_redis_says_how_long_its_words_are() -> None:
    kept = filled(dialects.Redis().keep(12, 20), 0)

    assert kept.startswith(b"*5\r\n$4\r\nXADD\r\n$5\r\noff12\r\n$1\r\n*\r\n$1\r\nm\r\n$20\r\n^0000")
    assert kept.endswith(b"xxx\r\n")


@pytest.mark.parametrize(
    ("dialect", "fanout"),
    [
        (dialects.Irc(), 103),
        (dialects.Line(), 103),
        (dialects.Nats(), 100),
        (dialects.Redis(), 100),
        (dialects.Mqtt(), 100),
        (dialects.Frames(), 100),
    ],
)
def test_a_room_reaches_all_of_its_members(dialect: dialects.Dialect, fanout: int) -> None:
    connections = dialect.plan(Room()).connections

    senders = [each for each in connections if each.flags is Flag.SENDS]
    assert len(connections) == 104
    assert {each.fanout for each in senders} == {fanout}
    assert len(senders) == 4


def test_a_peer_that_is_missing_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Mosquitto, "program", "no-such-program")

    with pytest.raises(Missing, match="there is no no-such-program .apt install mosquitto"):
        Mosquitto().version()


def test_who_has_no_acknowledgement_takes_no_part() -> None:
    with pytest.raises(dialects.Unsupported):
        dialects.Irc().plan(Pairs())
