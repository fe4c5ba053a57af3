"""Posts that wait while memberships, signatures and clocks change around them."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from saltline.client.model import Delivery, LineKind
from saltline.protocol import to_client
from tests.client.conftest import Meet
from tests.client.hostile import refusing, under
from tests.client.world import MemoryRelay, Person, settle
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

DAY_MS = 86_400_000


def wait(relay: MemoryRelay, *people: Person, minutes: int = 2) -> None:
    for _ in range(minutes):
        relay.now_ms += 60_000
        for person in people:
            person.tick()
        settle(*people)


def test_a_post_that_was_signed_before_joining_again_is_signed_anew(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    """The join has a later time: members would take the older signature for a replay."""
    settle(alice, bob)
    under(alice, refusing(to_client.Posted, "not_a_member"))
    first = alice.post("#lobby", "one")
    alice.post("#lobby", "two")
    settle(alice)
    wait(relay, alice, bob)
    assert bob.texts("#lobby") == ["one", "two"] == alice.texts("#lobby")
    assert bob.notices("#lobby") == [] == alice.notices("#lobby")
    assert alice.delivery(first) is Delivery.RELAYED
    assert alice.core.idle()


def test_a_post_that_never_reached_the_room_is_signed_anew_after_joining_again(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    settle(alice, bob)
    assert alice.ask(lambda t, now: alice.core.leave("#lobby", t, now)) is None
    alice.offline()
    with alice.vault.transaction():  # as after a crash, or a relay that lost the membership
        alice.core._ctx.timeline.set_joined("#lobby", True)
    under(alice, with_lobby)
    alice.post("#lobby", "one")
    settle(alice, bob)
    wait(relay, alice, bob)
    assert bob.texts("#lobby") == ["one"] == alice.texts("#lobby")
    assert bob.notices("#lobby") == []
    assert alice.core.idle()


def with_lobby(message: Heard) -> Iterable[Heard]:
    if isinstance(message, to_client.Welcome):
        message = to_client.Welcome(
            message.time_ms,
            (to_client.RoomMark("#lobby", 3),),
            message.signed_prekey_id,
            message.kem_prekey_id,
            message.one_time_left,
            message.one_time_kem_left,
            b"",
        )
    yield message


def test_the_answer_tells_the_number_of_an_entry_that_never_comes_back(alice: Person) -> None:
    """Who leaves right after a post gets no more entries of that room."""
    settle(alice)
    under(alice, lambda m: [] if isinstance(m, to_client.RoomEntry) else [m])
    alice.post("#lobby", "one more thing")
    settle(alice)
    line = alice.lines("#lobby")[-1]
    assert (line.delivery, line.number) == (Delivery.RELAYED, 2)


def test_leaving_gives_up_what_still_waits(alice: Person, bob: Person, relay: MemoryRelay) -> None:
    """It would join the room again behind the person's back."""
    settle(alice, bob)
    refuse = refusing(to_client.Posted, "rate_limited")
    under(alice, lambda m: [] if isinstance(m, to_client.RoomEntry) else refuse(m))
    line = alice.post("#lobby", "too late")
    settle(alice)
    assert alice.delivery(line) is Delivery.QUEUED
    assert alice.ask(lambda t, now: alice.core.leave("#lobby", t, now)) is None
    wait(relay, alice, bob)
    assert alice.delivery(line) is Delivery.FAILED
    assert "you left #lobby" in alice.reason(line)
    assert bob.lines("#lobby")[-1].kind is LineKind.LEAVE
    assert not alice.core._ctx.timeline.is_joined("#lobby")


def test_leaving_gives_up_nothing_that_the_room_has(alice: Person, bob: Person) -> None:
    """The answer was lost, but the entry came back: everybody reads it."""
    settle(alice, bob)
    under(alice, refusing(to_client.Posted, "rate_limited"))
    line = alice.post("#lobby", "one more thing")
    settle(alice, bob)
    assert (alice.delivery(line), alice.core.queued()) == (Delivery.RELAYED, 1)
    assert alice.ask(lambda t, now: alice.core.leave("#lobby", t, now)) is None
    assert bob.texts("#lobby") == ["one more thing"]
    assert alice.delivery(line) is Delivery.RELAYED and alice.reason(line) == ""
    assert alice.core.queued() == 0


def test_leaving_a_room_that_the_relay_has_forgotten(alice: Person, bob: Person) -> None:
    settle(alice, bob)
    under(alice, refusing(to_client.Posted, "not_a_member"))
    assert alice.ask(lambda t, now: alice.core.leave("#lobby", t, now)) is None
    assert not alice.core._ctx.timeline.is_joined("#lobby")


def test_a_clock_that_was_years_ahead_does_not_end_a_rooms_posts(
    alice: Person, bob: Person, relay: MemoryRelay
) -> None:
    settle(alice, bob)
    ahead = alice.now + 5 * 365 * DAY_MS
    alice.offline()
    line, commands = alice.core.post("#lobby", "from the future", ahead)
    alice.perform(commands)
    alice.online()
    alice.perform(alice.core.tick(ahead))
    assert alice.link is None  # the clock jumped: a new connection
    alice.online()
    late, commands = alice.core.post("#lobby", "from next year", ahead)
    alice.perform(commands)
    settle(alice, bob)
    alice.offline()
    alice.online()
    post = alice.post("#lobby", "from today")
    settle(alice, bob)
    wait(relay, alice, bob)
    assert alice.delivery(post) is Delivery.RELAYED
    assert "from today" in bob.texts("#lobby")
    assert bob.notices("#lobby") == []
    for each in (line, late):
        assert alice.delivery(each) in (Delivery.RELAYED, Delivery.FAILED)


def backup_of(relay: MemoryRelay, folder: Path) -> bytes:
    relay.store.close()
    backup = (folder / "relay.db").read_bytes()
    relay._start()
    return backup


def restore(relay: MemoryRelay, folder: Path, backup: bytes) -> None:
    relay.store.close()
    for name in ("relay.db-wal", "relay.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "relay.db").write_bytes(backup)
    relay._start()


@pytest.mark.parametrize("more", [0, 1, 5])
def test_posts_that_waited_leave_for_a_relay_from_an_old_backup(
    meet: Meet, alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path, more: int
) -> None:
    """It has other entries at the numbers that they claim to have seen."""
    settle(alice, bob)
    alice.offline()
    bob.offline()
    backup = backup_of(relay, tmp_path)
    bob.online()
    alice.online()
    bob.post("#lobby", "lost")
    alice.post("#lobby", "lost too")
    settle(alice, bob)
    alice.offline()
    bob.offline()
    restore(relay, tmp_path, backup)
    carol = meet("carol")
    for number in range(1 + more):
        carol.post("#lobby", f"carol {number}")
        settle(carol)
    line = alice.post("#lobby", "typed offline")
    alice.online()
    settle(alice, carol)
    assert alice.delivery(line) is Delivery.RELAYED
    assert carol.texts("#lobby")[-1] == "typed offline"
    assert any("split" in notice for notice in alice.notices("#lobby"))
    assert alice.core.queued() == 0


def test_who_left_a_room_may_join_it_on_a_relay_from_an_old_backup(
    alice: Person, bob: Person, relay: MemoryRelay, tmp_path: Path
) -> None:
    bob.post("#den", "first")
    settle(alice, bob)
    alice.offline()
    bob.offline()
    backup = backup_of(relay, tmp_path)
    alice.online()
    alice.post("#den", "lost")
    settle(alice)
    assert alice.ask(partial(alice.core.leave, "#den")) is None
    alice.offline()
    restore(relay, tmp_path, backup)
    alice.online()
    assert alice.ask(partial(alice.core.join, "#den")) is None
    assert any("split" in notice for notice in alice.notices("#den"))


@pytest.mark.parametrize("is_left", [False, True])
def test_a_post_that_is_queued_again_under_its_id_is_the_same_line(
    alice: Person, is_left: bool
) -> None:
    """As by a command whose first owner went away before it said that it had queued it."""
    if not is_left:
        alice.offline()
    lines = [alice.core.post("#lobby", "one", alice.now, bytes(16)) for _ in range(2)]
    for _, commands in lines:
        alice.perform(commands)
    settle(alice)

    assert lines[0][0].row == lines[1][0].row
    assert alice.texts("#lobby") == ["one"]
    assert alice.core.queued() == (0 if is_left else 1)
