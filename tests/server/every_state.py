"""What a client can send, in whatever state its connection is, and what may come of it.

The answers and errors of each message are those of docs/protocol.md, read from its table.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from saltline.crypto.bundles import PrekeyKind
from saltline.protocol import to_client, to_relay
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import ClientMessage, RelayMessage, encode_message
from saltline.protocol.names import LOBBY
from saltline.server.administration import RemoveUser
from saltline.server.effects import ERROR
from saltline.server.settings import Settings
from tests.protocol.wire_values import elements, good, largest, refused, struct_type
from tests.server.person import HELLO, NO_SIGNATURE, Person
from tests.server.relay_harness import MemoryRelay
from tests.server.scenes import invite, members
from tests.server.test_core_storage import BROKEN, FULL, FailingStore

MESSAGES: Final[tuple[type[Any], ...]] = get_args(ClientMessage)
PUSHED: Final = (
    to_client.Deliver,
    to_client.CaughtUp,
    to_client.RoomEntry,
    to_client.Presence,
)
FOR_STRANGERS: Final = (
    to_client.Challenge,
    to_client.Invited,
    to_client.Welcome,
    to_client.Error,
)
# Any request may get these: docs/protocol.md §6, above the table of messages.
ANY_REQUEST: Final = {
    ErrorCode.BAD_MESSAGE,
    ErrorCode.UNSUPPORTED_VERSION,
    ErrorCode.TOO_EARLY,
    ErrorCode.RATE_LIMITED,
    ErrorCode.STORAGE_FAILED,
    ErrorCode.STOPPING,
}
# "What ends the connection", there.
ENDS_A_STRANGER_NOT: Final = {
    ErrorCode.BAD_NAME,
    ErrorCode.NAME_TAKEN,
    ErrorCode.INVITE_NEEDED,
    ErrorCode.BAD_INVITE,
}
ENDS_A_USER: Final = {
    ErrorCode.BAD_FRAME,
    ErrorCode.FRAME_TOO_LARGE,
    ErrorCode.BAD_MESSAGE,
    ErrorCode.UNSUPPORTED_VERSION,
    ErrorCode.TOO_SLOW,
    ErrorCode.REPLACED,
    ErrorCode.REMOVED,
}


def _documented() -> dict[str, tuple[str, set[str]]]:
    """For each message: its answer, and its errors besides those of every request."""
    text = (Path(__file__).parents[2] / "docs/protocol.md").read_text("utf-8")
    table = text.partition("### Messages to the relay")[2].partition("### Messages to the client")
    rows = re.findall(r"^\| `(\w+)` \(`\w+`\) \|[^|]*\|([^|]*)\|([^|]*)\|$", table[0], re.M)
    return {
        name: (answer.strip().strip("`"), set(re.findall(r"`(\w+)`", errors)))
        for name, answer, errors in rows
    }


DOCUMENTED: Final = _documented()


class Scene:
    """A relay, two honest people in its lobby, and whoever tries things."""

    def __init__(self, **limits: int) -> None:
        usual = {
            "requests_burst": 10**9,
            "registrations_per_minute_and_address": 10**9,
            "unauthenticated_max": 10**6,
            "unauthenticated_per_address": 10**6,
            "waiting_per_connection_bytes": 20_000,
        }
        settings = Settings(**{**usual, **limits})  # type: ignore[arg-type]
        self.relay = MemoryRelay(settings=settings, wrap_store=FailingStore)
        assert isinstance(self.relay.store, FailingStore)
        self.disk = self.relay.store
        self.ada, self.bob = members(self.relay, "ada", "bob")
        self.code = invite(self.relay)
        self.is_over = False  # nobody is served any more
        self._eve: Person | None = None
        self._newcomers = 0
        self._prekeys: dict[str, tuple[bytes, ...]] = {}

    def newcomer(self) -> Person:
        """Somebody without an account."""
        self._newcomers += 1
        return Person(self.relay, f"eve-{self._newcomers}")

    def user(self) -> Person:
        """Somebody with an account who is logged in; the same again, while that can be."""
        eve = self._eve
        if eve is None:
            eve = self._eve = self.newcomer()
            eve.register()
        elif not eve.connection.is_open:
            eve.login()
        eve.take()
        return eve

    def member(self) -> Person:
        """The same, who is in the lobby as well."""
        is_new = self._eve is None
        eve = self.user()
        if is_new:
            eve.join(LOBBY)
            eve.take()
        return eve

    def forget(self) -> None:
        """The next user is another one."""
        self._eve = None

    def prekeys(self, person: Person) -> tuple[bytes, ...]:
        """What this person may publish, encoded; made once."""
        made = self._prekeys.get(person.username)
        if made is None:
            pairs = [person.make(kind, 1)[0] for kind in PrekeyKind]
            made = self._prekeys[person.username] = tuple(p.public.encode() for p in pairs)
        return made

    def mistakes(self) -> list[str]:
        """What the relay logged as its own fault."""
        return [line.text for line in self.relay.logged if line.level == ERROR]

    def nothing_waits(self) -> bool:
        """Whether the core holds nothing for requests that are over."""
        desk = self.relay.core._desk
        left = [each for each in desk.connections.values() if each.waiting_bytes]
        return desk.is_idle and not desk._waiting_bytes and not desk._paused and not left

    def serve_honest_people(self) -> None:
        """Ada writes to Bob, in private and in the lobby, and it comes."""
        for person in (self.ada, self.bob):
            assert person.connection.is_open, "an honest client was cut off"
            person.take()
        request = self.ada.submit(self.bob, b"still here?")
        assert self.ada.expect(to_client.Submitted).id == request
        delivered = self.bob.expect(to_client.Deliver)
        assert delivered.envelope == b"still here?"
        self.bob.connection.send(to_relay.Acknowledge((delivered.number,), b""))
        self.ada.post(LOBBY, "and here?")
        assert [type(each) for each in self.bob.take()] == [to_client.RoomEntry]


# --- states ---------------------------------------------------------------------------------------


def _greeted(scene: Scene) -> Person:
    eve = scene.newcomer()
    eve.connect()
    return eve


def _nothing_sent(scene: Scene) -> Person:
    eve = scene.newcomer()
    eve.connection = scene.relay.connect()
    return eve


def _asking(scene: Scene) -> Person:
    eve = _greeted(scene)
    scene.relay.hold()
    eve.connection.send(to_relay.CheckInvite(2**32 - 1, scene.code))
    return eve


def _registering(scene: Scene) -> Person:
    eve = _greeted(scene)
    scene.relay.hold()
    eve.connection.send(eve.registration(eve.entry()))
    return eve


def _logging_in(scene: Scene) -> Person:
    eve = scene.user()
    eve.connection.cut()
    eve.connect()
    scene.relay.hold()
    eve.connection.send(eve.login_request())
    return eve


def _logged_in(scene: Scene) -> Person:
    return scene.user()


def _member(scene: Scene) -> Person:
    return scene.member()


def _waiting(scene: Scene) -> Person:
    eve = scene.member()
    scene.relay.hold()
    eve.submit(scene.ada, b"held by the disk")
    return eve


def _paused(scene: Scene) -> Person:
    eve = scene.member()
    scene.relay.hold()
    eve.submit(scene.ada, bytes(30_000))
    assert eve.connection.is_paused
    return eve


def _congested(scene: Scene) -> Person:
    eve = scene.member()
    eve.connection.congest(True)
    scene.ada.post(LOBBY, "missed")
    return eve


def _replaced(scene: Scene) -> Person:
    eve = scene.member()
    older = eve.connection
    eve.login()
    eve.connection = older
    older.take()
    assert not older.is_open
    return eve


def _removed(scene: Scene) -> Person:
    eve = scene.member()
    scene.relay.admin(RemoveUser(eve.username))
    assert not eve.connection.is_open
    eve.take()
    scene.forget()
    return eve


def _removed_while_asking(scene: Scene) -> Person:
    eve = _waiting(scene)
    scene.relay.ask(RemoveUser(eve.username))
    scene.forget()
    return eve


def _gone(scene: Scene) -> Person:
    eve = scene.member()
    eve.connection.cut()
    return eve


def _stopping(scene: Scene) -> Person:
    eve = scene.member()
    scene.relay.hold()
    scene.ada.submit(scene.bob, b"keeps the relay")
    scene.relay.stop()
    scene.is_over = True
    return eve


def _stopping_stranger(scene: Scene) -> Person:
    eve = _greeted(scene)
    scene.relay.hold()
    scene.ada.submit(scene.bob, b"keeps the relay")
    scene.relay.stop()
    scene.is_over = True
    return eve


def _after_stop(scene: Scene) -> Person:
    eve = scene.member()
    scene.relay.stop()
    eve.take()
    assert not eve.connection.is_open
    scene.is_over = True
    return eve


def _full_disk(scene: Scene) -> Person:
    eve = scene.member()
    scene.disk.error = FULL
    return eve


def _full_disk_stranger(scene: Scene) -> Person:
    eve = _greeted(scene)
    scene.disk.error = FULL
    return eve


def _broken_disk(scene: Scene) -> Person:
    eve = scene.member()
    scene.disk.error = BROKEN
    scene.ada.submit(scene.bob, b"meets it first")
    scene.is_over = True
    return eve


def _over_its_rate(scene: Scene) -> Person:
    eve = scene.member()
    account = eve.relay.core._desk.connections[eve.connection.number].known.account.id
    scene.relay.core._requests.take(account, 10**9, scene.relay.now_ms)
    return eve


def _full_relay(scene: Scene) -> Person:
    scene.relay.core.settings_changed(scene.relay.settings)
    eve = scene.user()
    eve.connection.cut()
    eve.connect()
    online = replace(scene.relay.settings, connections_max=2)  # Ada and Bob
    scene.relay.core.settings_changed(online)
    return eve


def _full_relay_newcomer(scene: Scene) -> Person:
    scene.relay.core.settings_changed(replace(scene.relay.settings, connections_max=2))
    return _greeted(scene)


STATES: Final[dict[str, Callable[[Scene], Person]]] = {
    "nothing sent": _nothing_sent,
    "greeted": _greeted,
    "asking what a code is for": _asking,
    "registering": _registering,
    "logging in": _logging_in,
    "logged in": _logged_in,
    "a member": _member,
    "waiting for the disk": _waiting,
    "paused": _paused,
    "congested": _congested,
    "over its rate": _over_its_rate,
    "a full relay": _full_relay,
    "a full relay, a newcomer": _full_relay_newcomer,
    "replaced": _replaced,
    "removed": _removed,
    "being removed": _removed_while_asking,
    "gone": _gone,
    "a full disk": _full_disk,
    "a full disk, a stranger": _full_disk_stranger,
    "a broken disk": _broken_disk,
    "stopping": _stopping,
    "stopping, a stranger": _stopping_stranger,
    "after stop": _after_stop,
}

# --- messages -------------------------------------------------------------------------------------


def _register(_scene: Scene, eve: Person) -> to_relay.Register:
    if eve.connection.bodies:
        return eve.registration(eve.entry())
    return to_relay.Register(eve.username, eve.entry().encode(), NO_SIGNATURE, "")


def _login(_scene: Scene, eve: Person) -> to_relay.Login:
    if eve.connection.bodies:
        return eve.login_request((), ())
    return to_relay.Login(eve.username, 1, NO_SIGNATURE, (), ())


VALID: Final[dict[type[Any], Callable[[Scene, Person], Any]]] = {
    to_relay.Hello: lambda scene, eve: HELLO,
    to_relay.CheckInvite: lambda scene, eve: to_relay.CheckInvite(eve.next_id(), scene.code),
    to_relay.Register: _register,
    to_relay.Login: _login,
    to_relay.Publish: lambda scene, eve: to_relay.Publish(eve.next_id(), scene.prekeys(eve)),
    to_relay.Lookup: lambda scene, eve: to_relay.Lookup(
        eve.next_id(), (to_relay.LookupName("ada", 0),)
    ),
    to_relay.Claim: lambda scene, eve: to_relay.Claim(eve.next_id(), "ada", 1),
    to_relay.Submit: lambda scene, eve: to_relay.Submit(eve.next_id(), "ada", 1, b"sealed", b""),
    to_relay.Acknowledge: lambda scene, eve: to_relay.Acknowledge((), b""),
    to_relay.Join: lambda scene, eve: eve.join_request("#garden", eve.statement(RoomKind.JOIN)),
    to_relay.Post: lambda scene, eve: eve.post_request(LOBBY, eve.statement(RoomKind.TEXT, b"hi")),
    to_relay.History: lambda scene, eve: to_relay.History(eve.next_id(), LOBBY, 0, 200),
    to_relay.Who: lambda scene, eve: to_relay.Who(eve.next_id(), LOBBY),
    to_relay.ListRooms: lambda scene, eve: to_relay.ListRooms(eve.next_id()),
    to_relay.Ping: lambda scene, eve: to_relay.Ping(eve.next_id()),
}


def variants(message: Any, turn: int) -> list[tuple[bytes, bool]]:
    """The message, encoded, and with each field off; and whether it is still of the protocol.

    A field is once the smallest and once the largest that fits. What does not fit is refused before
    any state is looked at, so that one will do: `turn` chooses which.
    """
    kind = struct_type(type(message))
    fields: list[Any] = msgspec.msgpack.decode(encode_message(message))[1:]

    def changed(place: int, value: Any) -> bytes:
        return msgspec.msgpack.encode(
            elements(kind, [*fields[:place], value, *fields[place + 1 :]])
        )

    place = turn % len(fields)
    wrong = list(refused(kind.fields[place].type))
    found = [(encode_message(message), True), (changed(place, wrong[turn % len(wrong)]), False)]
    for place, field in enumerate(kind.fields):
        for value in (good(field.type), largest(field.type, 1)):
            if value != fields[place]:
                found.append((changed(place, value), True))
    return found


# --- what may come of it --------------------------------------------------------------------------


def check_answers(
    message: type[Any], number: int, came: list[RelayMessage], *, fits: bool, owed: int = 0
) -> None:
    """What came on a connection that was open is one documented answer to one message.

    `number` is the message's id, or 0; `owed` is how many earlier requests may be answered too.
    """
    answers = [each for each in came if not isinstance(each, PUSHED)]
    assert len(answers) <= 1 + owed, f"answered more than once: {answers}"
    answer, errors = DOCUMENTED[message.__name__]
    allowed = {*ANY_REQUEST, *map(ErrorCode, errors)} if fits else ANY_REQUEST
    mine = [each for each in answers if getattr(each, "id", 0) == number]
    assert len(mine) <= 1 + owed
    for each in mine:
        if isinstance(each, to_client.Error):
            assert each.code in allowed, f"{message.__name__} is not documented to get {each.code}"
            assert each.detail and each.detail.isprintable()
        elif not owed:
            assert type(each).__name__ == answer
    if answer == "none" and not any(isinstance(each, to_client.Error) for each in answers):
        assert len(answers) <= owed
    elif not owed:
        assert len(answers) == 1, "not answered"


def ends_the_connection(error: to_client.Error, is_user: bool, message: type[Any]) -> bool:
    """What docs/protocol.md says of an error."""
    if not is_user:
        return error.code not in ENDS_A_STRANGER_NOT
    if error.code == ErrorCode.RATE_LIMITED and message is to_relay.Acknowledge:
        return True
    return error.code in ENDS_A_USER or (error.code == ErrorCode.STOPPING and not error.id)
