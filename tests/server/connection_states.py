"""A relay, honest people on it, and connections in every state that there is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from saltline.crypto.bundles import PrekeyKind
from saltline.protocol import to_client, to_relay
from saltline.protocol.names import LOBBY
from saltline.server.administration import RemoveUser
from saltline.server.effects import ERROR
from saltline.server.settings import Settings
from tests.server.person import Person
from tests.server.relay_harness import MemoryRelay
from tests.server.scenes import invite, members
from tests.server.test_core_storage import BROKEN, FULL, FailingStore


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

    def begin_to_stop(self) -> None:
        """The relay stops, as soon as the disk has done what it asked for."""
        self.relay.hold()
        self.ada.submit(self.bob, b"keeps the relay")
        self.relay.stop()
        self.is_over = True

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
    scene.begin_to_stop()
    return eve


def _stopping_stranger(scene: Scene) -> Person:
    eve = _greeted(scene)
    scene.begin_to_stop()
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
