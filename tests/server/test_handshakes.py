"""Whose TLS handshake comes first when there are too many."""

import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from selectors import EVENT_READ

import pytest

from saltline.server import handshakes, waiting_room
from saltline.server.handshakes import (
    CROWD_PATIENCE_S,
    UNANSWERED_S,
    HandshakeThread,
)
from saltline.server.waiting_room import (
    COST_BEGUN,
    COST_FINISHED,
    COST_FREE_MAX,
    FORGET_EVERY_S,
)
from tests.server.edge import CONTEXT
from tests.server.handshake_scene import FIRST_BYTE, Clock, Scene
from tests.waiting import wait_until

FREE = COST_FREE_MAX // COST_BEGUN


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(handshakes, "monotonic", clock)
    return clock


@pytest.fixture
def scene(tmp_path: Path, clock: Clock) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_who_began_fewest_comes_first_and_of_these_the_newest(scene: Scene) -> None:
    scene.arrive("crowded")
    scene.turn()
    scene.turn()
    assert scene.begun == ["crowded"]
    for group in ("crowded", "first", "second"):
        scene.arrive(group)
    scene.turn()
    scene.turn()
    assert scene.begun == ["crowded", "second", "first", "crowded"]


def test_who_is_alone_is_not_passed_over_for_a_crowd_that_owes_nothing_yet(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_room, "_NEWEST", 8)
    with monkeypatch.context() as patch:
        patch.setattr(scene.thread, "_has_room", lambda _who, _now_s: False)
        for group in ("lone", *("crowded", "fresh") * 8, "last"):
            scene.arrive(group)
        scene.turn()
        scene.turn()
    assert scene.begun == []
    scene.turn()
    assert scene.begun[:2] == ["last", "lone"]
    assert len(scene.thread._room._lone) == 0


def test_beyond_the_first_few_an_address_gets_half_of_the_time(scene: Scene, clock: Clock) -> None:
    for _ in range(FREE + 3):
        scene.arrive("crowded")
    scene.turn()
    clock.look_s = 0.25  # each look at the clock: a beginning takes long
    scene.turn()
    clock.look_s = 0.0
    assert scene.begun == ["crowded"] * (FREE + 3)
    assert scene.thread._more_at_s > clock.now_s  # as long as those three took

    scene.arrive("crowded")
    scene.arrive("newcomer")
    scene.turn()
    scene.turn()
    assert scene.begun[FREE + 3 :] == ["newcomer"]
    clock.now_s = scene.thread._more_at_s
    scene.turn()
    assert scene.begun[FREE + 4 :] == ["crowded"]


def test_what_an_address_began_is_forgotten_by_halves(scene: Scene, clock: Clock) -> None:
    scene.arrive("crowded")
    scene.turn()
    scene.turn()
    assert scene.thread._room._cost == {"crowded": COST_BEGUN}
    for left in (COST_BEGUN // 2, COST_BEGUN // 4, None):
        clock.now_s += FORGET_EVERY_S
        scene.turn()
        assert scene.thread._room._cost.get("crowded") == left


def test_a_finished_handshake_costs_an_address_little(scene: Scene) -> None:
    peer = scene.arrive("office", says=b"")
    peer.setblocking(False)
    client = CONTEXT.wrap_socket(peer, do_handshake_on_connect=False)
    scene.peers.append(client)

    def shake() -> bool:
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        scene.turn()
        return bool(scene.handed_over)

    wait_until(shake)
    assert scene.handed_over[0].address == "office"
    assert scene.thread._room._cost == {"office": COST_FINISHED}


def test_of_an_inbox_that_is_too_long_the_newest_are_heard(scene: Scene) -> None:
    scene.thread._waiting_max = 1
    peers = [scene.arrive(f"address {number}") for number in range(4)]
    scene.turn()
    assert [_is_closed(peer) for peer in peers] == [True, True, False, False]
    scene.turn()
    assert scene.begun == ["address 3", "address 2"]


def test_while_logins_wait_for_the_relay_no_handshake_begins(scene: Scene) -> None:
    scene.is_swamped = True
    peer = scene.arrive("patient")
    for _ in range(5):
        scene.turn()
    assert scene.begun == [] and not _is_closed(peer)
    scene.is_swamped = False
    scene.turn()
    assert scene.begun == ["patient"]


def test_where_too_many_wait_the_one_whose_address_cost_most_gives_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "BEGUN_MAX", 2)
    lone, first, second = (scene.arrive(group) for group in ("lone", "crowded", "crowded"))
    scene.turn()
    scene.turn()
    assert not any(_is_closed(peer) for peer in (lone, first, second)), "all had too little time"
    monkeypatch.setattr(handshakes, "BEGUN_PATIENCE_S", 0.0)
    scene.turn()
    lone.setblocking(False)
    with pytest.raises(BlockingIOError):
        lone.recv(1)  # still under way
    assert len(scene.thread._begun) == 2
    ended = [peer for peer in (first, second) if _is_closed(peer)]
    assert len(ended) == 1


def test_what_an_address_has_cost_weighs_more_than_how_many_of_it_are_under_way(
    scene: Scene, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # began, and went away
        scene.arrive("costly").close()
        scene.turn()
        scene.turn()
    monkeypatch.setattr(handshakes, "BEGUN_MAX", 3)
    first, second, costly = (scene.arrive(group) for group in ("pair", "pair", "costly"))
    scene.turn()
    scene.turn()
    clock.now_s += handshakes.BEGUN_PATIENCE_S
    scene.arrive("lone")
    scene.turn()
    scene.turn()
    assert [_is_closed(peer) for peer in (first, second, costly)] == [False, False, True]
    assert scene.begun[-1] == "lone"


def test_of_too_many_addresses_what_they_cost_is_forgotten_sooner(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_room, "ADDRESSES_MAX", 8)
    for number in range(100):
        scene.arrive(f"address {number}").close()
        scene.turn()
    scene.turn()
    assert scene.begun == [f"address {number}" for number in range(100)]
    assert len(scene.thread._room._cost) <= 8 + 1


def test_one_of_a_crowd_makes_way_sooner_for_who_is_alone(
    scene: Scene, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "BEGUN_MAX", 2)

    def begin() -> str:
        """Who begins of those who have come, after a while that the crowd's patience takes."""
        clock.now_s += CROWD_PATIENCE_S
        before = len(scene.begun)
        scene.turn()
        scene.turn()
        return " ".join(scene.begun[before:])

    crowd = [scene.arrive("crowded"), scene.arrive("crowded")]
    assert begin() == "crowded crowded"
    crowd.append(scene.arrive("crowded"))
    assert begin() == "", "one of the crowd does not push another out so soon"
    first, second = scene.arrive("first"), scene.arrive("second")
    scene.turn()
    scene.turn()
    assert scene.begun[2:] == ["second", "first"]
    assert [_is_closed(peer) for peer in crowd] == [True, True, False]
    third = scene.arrive("third")
    assert begin() == "" and not _is_closed(first), "who is alone has all its time"
    assert begin() == "third crowded"
    assert _is_closed(first) and _is_closed(second) and not _is_closed(third)


def _is_closed(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return not peer.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_what_is_not_tls_costs_nothing(scene: Scene) -> None:
    peer = scene.arrive("address", says=b"GET / HTTP/1.1\r\n\r\n")
    scene.turn()
    scene.turn()
    assert scene.begun == [] and len(scene.thread) == 0 and scene.thread._room._cost == {}
    assert _is_closed(peer)


def test_no_more_begin_at_once_than_one_slow_computer_can_answer(
    scene: Scene, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "UNANSWERED_MAX", 2)
    sleep_s = partial(HandshakeThread._sleep_s, scene.thread)
    for number in range(5):
        scene.arrive(f"address {number}")
    scene.turn()
    scene.turn()
    assert scene.begun == ["address 4", "address 3"]
    assert sleep_s() == UNANSWERED_S, "nothing can be done before"

    clock.now_s += UNANSWERED_S
    scene.turn()
    assert scene.begun[2:] == ["address 2", "address 1"]
    assert len(scene.thread._begun) == 4, "nobody had to go for them"

    scene.peers[-1].close()  # one of the latest two ends: that makes room at once
    scene.peers[2].close()
    scene.turn()
    assert scene.begun[4:] == ["address 0"]
    assert len(scene.thread._begun) == 3 and not scene.thread._room.spoken


def test_while_there_is_room_the_thread_does_not_sleep_over_those_who_wait(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "UNANSWERED_MAX", 2)
    monkeypatch.setattr(handshakes, "BEGINNINGS_PER_TURN", 1)
    sleep_s = partial(HandshakeThread._sleep_s, scene.thread)
    peers = [scene.arrive(f"address {number}") for number in range(5)]
    for _ in range(4):
        scene.turn()
    assert len(scene.begun) == 2 and sleep_s() == UNANSWERED_S
    for peer in peers[3:]:
        peer.close()
    scene.turn()
    assert len(scene.begun) == 3 and sleep_s() == 0.0


def test_who_finished_a_few_is_no_worse_than_a_newcomer(scene: Scene, clock: Clock) -> None:
    scene.thread._room._cost = {"office": COST_BEGUN - 1, "crowded": COST_BEGUN}
    scene.thread._room._forget_at_s = clock.now_s + FORGET_EVERY_S
    for group in ("newcomer", "office", "crowded"):
        scene.arrive(group)
    scene.turn()
    scene.turn()
    assert scene.begun == ["office", "newcomer", "crowded"]


def test_who_has_spoken_already_is_not_watched(scene: Scene) -> None:
    silent, spoken = scene.arrive("silent", says=b""), scene.arrive("spoken")
    scene.is_swamped = True
    scene.turn()
    masks = {each.group: each.mask for each in scene.thread._all()}
    assert masks == {"silent": EVENT_READ, "spoken": 0}
    silent.sendall(FIRST_BYTE)
    scene.turn()
    assert [each.group for each in scene.thread._room.spoken.values()] == ["spoken", "silent"]
    assert not _is_closed(spoken)


def test_who_gives_way_may_be_the_last_of_an_address_that_comes_again(scene: Scene) -> None:
    scene.thread._waiting_max = 1
    first = scene.arrive("again", says=b"")
    scene.arrive("other", says=b"")
    scene.turn()
    second = scene.arrive("again", says=b"")
    scene.turn()
    assert first.recv(1) == b"", "it gave way"
    third = scene.arrive("again", says=b"")
    scene.turn()
    scene.arrive("other", says=b"")
    scene.turn()
    assert second.recv(1) == b""
    third.sendall(FIRST_BYTE)
    scene.turn()
    scene.turn()
    assert scene.begun == ["again"]


def test_a_crowd_may_all_be_silent_and_then_all_wait_for_its_turn(scene: Scene) -> None:
    scene.thread._waiting_max = 2
    scene.is_swamped = True
    crowd = []
    for number in range(4):
        crowd.append(scene.arrive(f"address {number}", says=b""))
        scene.turn()
    for peer in crowd:
        peer.sendall(FIRST_BYTE)
        scene.turn()
    assert len(scene.thread._room.spoken) == 4 and not any(map(_is_closed, crowd))

    crowd.append(scene.arrive("silent", says=b""))
    scene.turn()
    assert [_is_closed(peer) for peer in crowd] == [True, False, False, False, False]
    crowd.append(scene.arrive("newest"))
    scene.turn()
    assert _is_closed(crowd[4]) and not _is_closed(crowd[5])
    assert len(scene.thread) == 4
