"""Every message in every state: one documented answer, no mistake, nobody let in, nobody harmed."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import decode_client_message, encode_message
from saltline.server.administration import RemoveUser
from tests.protocol.wire_values import elements, struct_type, values
from tests.server.connection_states import STATES, Scene
from tests.server.every_message import (
    DOCUMENTED,
    FOR_STRANGERS,
    MESSAGES,
    PUSHED,
    VALID,
    check_answers,
    ends_the_connection,
    variants,
)
from tests.server.person import Person

# An earlier request is answered as well once the disk has done it, or the relay says goodbye.
OWED = {
    "asking what a code is for",
    "registering",
    "logging in",
    "waiting for the disk",
    "paused",
    "stopping",
}
# Each message takes a new account, or a new relay: of the fields that fit, these try none.
DEAR = {"being removed", "registering", "stopping", "stopping, a stranger", "a broken disk"}


def test_no_message_is_forgotten() -> None:
    assert set(VALID) == set(MESSAGES), "a new message needs a valid example"
    assert set(DOCUMENTED) == {message.__name__ for message in MESSAGES}


def try_in_state(
    scene: Scene, state: str, eve: Person, kind: type[Any], body: bytes, fits: bool
) -> None:
    """Send a body in a state, let the disk go on, and look at everything that came of it."""
    connection = eve.connection
    was_open, was_user = connection.is_open, connection.is_promoted
    number = getattr(decode_client_message(body), "id", 0) if fits else 0
    for person in (eve, scene.ada, scene.bob):
        person.take()
    connection.send_bodies(body)
    scene.relay.release()
    came = connection.take()
    if not was_open:
        assert came == []
    elif state == "being removed":
        assert not connection.is_open
    else:
        owed = int(state in OWED)
        check_answers(kind, number, came, fits=fits, owed=owed)
        for each in came:
            if isinstance(each, to_client.Error) and not owed:
                assert connection.is_open != ends_the_connection(each, was_user, kind), each
    if not (was_user or connection.is_promoted):
        assert all(isinstance(each, FOR_STRANGERS) for each in came)
        if not (scene.is_over or state in OWED):
            assert scene.ada.take() == scene.bob.take() == [], "a stranger reached somebody"
    assert scene.mistakes() == []
    assert state == "a broken disk" or scene.nothing_waits()


@pytest.mark.parametrize("state", STATES)
def test_every_message_is_answered_as_documented(state: str) -> None:
    for place, kind in enumerate(MESSAGES):
        scene = Scene()
        number, count = 0, 1
        while number < count:
            if scene.is_over:
                scene = Scene()
            eve = STATES[state](scene)
            found = variants(VALID[kind](scene, eve), place + len(state))
            count = (2 if state in DEAR else len(found)) if eve.connection.is_open else 1
            body, fits = found[number]
            try_in_state(scene, state, eve, kind, body, fits)
            scene.disk.error = None
            number += 1
        if not scene.is_over:
            scene.serve_honest_people()


# --- any order ------------------------------------------------------------------------------------


class EveryMessageInAnyOrder(RuleBasedStateMachine):
    """Two attackers on one connection each, in any order; the disk and the relay in any state."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.eves = [self.scene.newcomer(), self.scene.user()]
        self.scene.forget()
        # By connection and id: what was asked with it, and how often it was answered.
        self.asked: dict[tuple[int, int], type[Any]] = {}
        self.answered: dict[tuple[int, int], int] = {}

    @initialize()
    def begin(self) -> None:
        self.eves[0].connection = self.scene.relay.connect()

    def look(self, eve: Person) -> None:
        """Each answer is documented for the request whose id it has, and is the only one."""
        connection = eve.connection
        for each in eve.take():
            number = getattr(each, "id", 0)
            if isinstance(each, PUSHED):
                assert connection.is_promoted, "a stranger hears of others"
                continue
            if not connection.is_promoted:
                assert isinstance(each, FOR_STRANGERS)
            if isinstance(each, to_client.Error):
                assert each.code != ErrorCode.INTERNAL
            key = (connection.number, number)
            if not number:
                continue
            kind = self.asked[key]
            self.answered[key] = self.answered.get(key, 0) + 1
            assert self.answered[key] == 1, "answered twice"
            check_answers(kind, number, [each], fits=True)

    def connection_anew(self, eve: Person) -> None:
        self.look(eve)
        eve.connection = self.scene.relay.connect()

    @rule(who=st.sampled_from([0, 1]), kind=st.sampled_from(MESSAGES), data=st.data())
    def send(self, who: int, kind: type[Any], data: st.DataObject) -> None:
        """A message that is as it should be, or has one field off that still fits."""
        eve = self.eves[who]
        message = VALID[kind](self.scene, eve)
        if data.draw(st.booleans(), label="a field off"):
            struct = struct_type(kind)
            fields: list[Any] = msgspec.msgpack.decode(encode_message(message))[1:]
            place = data.draw(st.sampled_from(range(len(fields))))
            if struct.fields[place].name != "id":
                fields[place] = data.draw(values(struct.fields[place].type))
            message = decode_client_message(msgspec.msgpack.encode(elements(struct, fields)))
        number = getattr(message, "id", 0)
        if number:
            self.asked[eve.connection.number, number] = kind
        eve.connection.send(message)
        self.look(eve)

    @rule(who=st.sampled_from([0, 1]))
    def connect(self, who: int) -> None:
        self.connection_anew(self.eves[who])

    @rule(who=st.sampled_from([0, 1]))
    def cut(self, who: int) -> None:
        eve = self.eves[who]
        self.look(eve)
        if eve.connection.is_open:
            eve.connection.cut()
            self.scene.relay.connections.pop(eve.connection.number, None)

    @precondition(lambda self: not self.scene.relay.is_holding)
    @rule(who=st.sampled_from([0, 1]))
    def come_in(self, who: int) -> None:
        """Properly: with an account, which may have been removed since."""
        eve = self.eves[who]
        self.connection_anew(eve)
        eve.connection.send(VALID[to_relay.Hello](self.scene, eve))
        if eve.connection.bodies:
            eve.connection.send(VALID[to_relay.Login](self.scene, eve))
        self.look(eve)

    @rule()
    def hold_the_disk(self) -> None:
        self.scene.relay.hold()

    @rule()
    def let_the_disk_go_on(self) -> None:
        self.scene.relay.release()

    @rule(who=st.sampled_from([0, 1]), is_congested=st.booleans())
    def congest(self, who: int, is_congested: bool) -> None:
        if self.eves[who].connection.is_open:
            self.eves[who].connection.congest(is_congested)

    @rule(seconds=st.sampled_from([1, 19, 44]))
    def time_goes_on(self, seconds: int) -> None:
        """Up to the deadlines of a login and of silence, which honest people keep."""
        for honest in (self.scene.ada, self.scene.bob):
            honest.connection.send(to_relay.Ping(honest.next_id()))
        self.scene.relay.advance(seconds * 1000)

    @rule()
    def remove(self) -> None:
        """The second one has an account, at least at first."""
        self.scene.relay.ask(RemoveUser(self.eves[1].username))

    @invariant()
    def no_mistake(self) -> None:
        assert self.scene.mistakes() == []
        relay = self.scene.relay
        assert relay.core._desk.connections.keys() == relay.connections.keys(), "one is forgotten"
        for eve in self.eves:
            self.look(eve)

    def teardown(self) -> None:
        """Everything is answered that was asked on a connection that still stands."""
        self.scene.relay.release()
        for eve in self.eves:
            self.look(eve)
            if eve.connection.is_open:
                mine = {key for key in self.asked if key[0] == eve.connection.number}
                assert {key for key in self.answered if key in mine} == mine, "not answered"
        assert self.scene.nothing_waits()
        self.scene.serve_honest_people()
        super().teardown()


TestEveryMessageInAnyOrder = EveryMessageInAnyOrder.TestCase
TestEveryMessageInAnyOrder.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
