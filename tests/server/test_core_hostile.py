"""Whatever anyone sends, in whatever state: an answer, no mistake, and nobody let in."""

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.signatures import RoomStatement
from saltline.protocol import to_relay
from saltline.protocol.content import RoomKind
from saltline.protocol.messages import RESERVED_TAGS, encode_message
from saltline.protocol.to_client import Deliver, Error
from saltline.server.effects import ERROR
from saltline.server.settings import Settings
from tests.server.person import HELLO, Person
from tests.server.relay_harness import MemoryConnection, MemoryRelay
from tests.server.scenes import count_rows

NAMES = st.sampled_from(["ada", "bob", "eve", "admin", "nobody-here", "", "ADA", "a\0b", "é" * 16])
ROOMS = st.sampled_from(["#lobby", "#garden", "lobby", "#", "", "#no\nroom"])
SMALL = st.integers(1, 3)
COUNTS = st.one_of(st.integers(0, 5), st.sampled_from([2**31, 2**36, 2**36 + 1, 2**63 - 1]))
IDS = st.integers(1, 2**32 - 1)
BYTES = st.binary(max_size=40)
SIGNATURES = st.binary(min_size=64, max_size=64)
PREKEY_IDS = st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple)


def statements(person: Person) -> st.SearchStrategy[RoomStatement]:
    """Sensible ones, and nearly so."""
    return st.builds(
        lambda kind, message_id, time_ms, seen, body: RoomStatement(
            kind, message_id, time_ms, seen, bytes(32), body
        ),
        st.sampled_from([*RoomKind, 0, 9]),
        st.sampled_from([bytes(16), b"\x01" * 16]),
        st.sampled_from([0, person.relay.now_ms, 2**62]),
        st.integers(0, 3),
        BYTES,
    )


def build(kind: type[Any], *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A message of these fields. Hypothesis would make up one that is missing."""
    assert len(fields) == len(kind.__struct_fields__), kind
    return st.builds(kind, *fields)


def in_a_room(kind: type[Any], person: Person) -> st.SearchStrategy[Any]:
    """A join or a post: signed by this person, or by nobody, or not even a statement."""
    found = statements(person)
    return st.one_of(
        build(kind, IDS, ROOMS, BYTES, SIGNATURES),
        build(kind, IDS, ROOMS, found.map(RoomStatement.encode), SIGNATURES),
        st.builds(
            lambda id, room, statement: kind(
                id, room, statement.encode(), person.signature(room, statement)
            ),
            IDS,
            ROOMS,
            found,
        ),
    )


def messages(person: Person) -> st.SearchStrategy[Any]:
    """Any message of a client, with fields that are right often enough to get somewhere."""
    prekeys = [
        pair.public.encode()
        for kind in PrekeyKind
        for pair in (*person.make(kind, 1), *person.make(kind, 2))
    ]
    return st.one_of(
        build(
            to_relay.Hello,
            st.lists(st.integers(-1, 3), min_size=1, max_size=3).map(tuple),
            st.sampled_from([(), ("groups",)]),
            st.text(max_size=5),
        ),
        build(to_relay.CheckInvite, IDS, st.text(max_size=30)),
        build(to_relay.Register, NAMES, BYTES, SIGNATURES, st.text(max_size=30)),
        build(to_relay.Login, NAMES, SMALL, SIGNATURES, PREKEY_IDS, PREKEY_IDS),
        build(
            to_relay.Publish,
            IDS,
            st.lists(st.one_of(BYTES, st.sampled_from(prekeys)), max_size=4).map(tuple),
        ),
        build(
            to_relay.Lookup,
            IDS,
            st.lists(build(to_relay.LookupName, NAMES, COUNTS), max_size=4).map(tuple),
        ),
        build(to_relay.Claim, IDS, NAMES, SMALL),
        build(to_relay.Submit, IDS, NAMES, SMALL, st.binary(min_size=1, max_size=9), BYTES),
        build(to_relay.Acknowledge, st.lists(COUNTS, max_size=6).map(tuple), BYTES),
        in_a_room(to_relay.Join, person),
        in_a_room(to_relay.Post, person),
        build(to_relay.History, IDS, ROOMS, COUNTS, st.integers(1, 200)),
        build(to_relay.Who, IDS, ROOMS),
        build(to_relay.ListRooms, IDS),
        build(to_relay.Ping, IDS),
    )


def mistakes(relay: MemoryRelay) -> list[str]:
    return [line.text for line in relay.logged if line.level >= ERROR]


def answers_to(connection: MemoryConnection, request_id: int) -> int:
    return sum(getattr(message, "id", None) == request_id for message in connection.received)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bytes of any kind: random, msgpack of any kind, or nearly a message."""
    values = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), BYTES, st.text()),
        lambda children: st.one_of(
            st.lists(children, max_size=5), st.dictionaries(st.text(max_size=3), children)
        ),
        max_leaves=8,
    )
    tags = sorted(RESERVED_TAGS) + ["hello", "login", "register", "submit", "acknowledge", "post"]
    tagged = st.tuples(st.sampled_from(tags), values).map(list)
    return draw(
        st.one_of(
            st.binary(min_size=1, max_size=60),
            values.map(msgspec.msgpack.encode),
            tagged.map(msgspec.msgpack.encode),
        )
    )


RELAY = MemoryRelay(settings=Settings(requests_burst=10**9, unauthenticated_max=10**6))
ADA, BOB = Person(RELAY, "ada"), Person(RELAY, "bob")
for each in (ADA, BOB):
    each.register()
    each.take()


@settings(max_examples=120, deadline=None)
@given(body=bodies(), greeted=st.booleans())
def test_any_bytes_of_a_stranger_are_answered_with_an_error(body: bytes, greeted: bool) -> None:
    stranger = RELAY.connect()
    if greeted:
        stranger.send(HELLO)
        stranger.take()
    stranger.send_bodies(body)
    assert isinstance(stranger.take_one(Error), Error)
    assert not stranger.is_promoted
    assert mistakes(RELAY) == []


@settings(max_examples=120, deadline=None)
@given(body=bodies())
def test_any_bytes_of_a_user_are_answered_with_an_error(body: bytes) -> None:
    if not ADA.connection.is_open:
        ADA.login()
    ADA.take()
    ADA.connection.send_bodies(body)
    assert isinstance(ADA.connection.take_one(Error), Error)
    assert not ADA.connection.is_open
    assert mistakes(RELAY) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_messages_of_a_stranger_let_nobody_in(data: st.DataObject) -> None:
    stranger = RELAY.connect(data.draw(st.sampled_from(["192.0.2.9", "2001:db8::9"])))
    BOB.connection.take()
    for message in data.draw(st.lists(messages(BOB), min_size=1, max_size=4)):
        before = len(stranger.received)
        was_open = stranger.is_open
        stranger.send(message)
        assert len(stranger.received) == before + was_open, "each is answered, once"
    assert not stranger.is_promoted
    assert BOB.take() == []
    assert mistakes(RELAY) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_messages_of_a_user_are_each_answered_once(data: st.DataObject) -> None:
    if not ADA.connection.is_open:
        ADA.login()
    ADA.take()
    for message in data.draw(st.lists(messages(ADA), min_size=1, max_size=5)):
        was_open = ADA.connection.is_open
        ADA.take()
        ADA.connection.send_bodies(encode_message(message))
        request_id = getattr(message, "id", None)
        if was_open and request_id is not None:
            expected = 1 if ADA.connection.is_open or answers_to(ADA.connection, request_id) else 0
            assert answers_to(ADA.connection, request_id) == expected
            assert ADA.received, message
        if not ADA.connection.is_open:
            ADA.login()
            ADA.take()
    assert mistakes(RELAY) == []


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[str, int]]:
    steps = ["submit", "login", "cut", "acknowledge", "hold", "release", "congest", "drain", "tick"]
    return draw(
        st.lists(st.tuples(st.sampled_from(steps), st.integers(1, 4)), min_size=1, max_size=40)
    )


@settings(max_examples=100, deadline=None)
@given(schedule=schedules(), window=st.integers(1, 5))
def test_mail_comes_once_a_connection_in_order_and_is_never_lost(
    schedule: list[tuple[str, int]], window: int
) -> None:
    relay = MemoryRelay(
        settings=Settings(
            delivery_window_envelopes=window, delivery_window_bytes=20, requests_burst=10**9
        )
    )
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    bob.take()
    sent = 0
    stored: dict[int, bytes] = {}
    on_this_connection: list[int] = []

    def take() -> None:
        for message in bob.take():
            if isinstance(message, Deliver):
                on_this_connection.append(message.number)
                assert stored.setdefault(message.number, message.envelope) == message.envelope
        assert on_this_connection == sorted(set(on_this_connection))

    for step, amount in schedule:
        if step == "submit":
            for _ in range(amount):
                sent += 1
                ada.submit(bob, b"%d" % sent + b"." * amount)
        elif step == "login":
            take()
            on_this_connection.clear()
            relay.release()
            bob.login()
        elif step == "cut" and bob.connection.is_open:
            take()
            bob.connection.cut()
        elif step == "acknowledge" and bob.connection.is_open:
            take()
            bob.connection.send(to_relay.Acknowledge(tuple(on_this_connection[-amount:]), b""))
        elif step == "hold":
            relay.hold()
        elif step == "release":
            relay.release()
        elif step in ("congest", "drain") and bob.connection.is_open:
            bob.connection.congest(step == "congest")
        elif step == "tick":
            relay.advance(1_000)
        take()
        unacknowledged = relay.core._mailboxes._deliveries.values()
        assert all(len(each.unacknowledged) <= window for each in unacknowledged)

    # Once nothing fails any more, everything comes.
    relay.release()
    on_this_connection.clear()
    bob.login()
    for _ in range(sent + 1):
        take()
        bob.connection.send(to_relay.Acknowledge(tuple(on_this_connection), b""))
    assert sorted(stored) == list(range(1, sent + 1))
    assert [envelope.rstrip(b".") for _, envelope in sorted(stored.items())] == [
        b"%d" % number for number in range(1, sent + 1)
    ]
    assert count_rows(relay, "envelope") == 0
    assert mistakes(relay) == []
