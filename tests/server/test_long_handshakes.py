"""A step of a handshake that takes long holds up no others, and its address pays for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.server import handshakes, waiting_room
from saltline.server.waiting_room import COST_BEGUN, COST_FINISHED, LONG_STEP_S
from tests.server.handshake_scene import Clock, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


@pytest.fixture
def long_steps(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Each step takes as long as one that costs its address more."""
    clock = Clock()
    clock.look_s = 1.5 * LONG_STEP_S
    monkeypatch.setattr(handshakes, "thread_time", clock)
    return clock


def test_after_a_long_beginning_those_have_their_turn_who_came_meanwhile(
    scene: Scene, long_steps: Clock
) -> None:
    for number in range(3):
        scene.arrive("crowded" if number else "first")
    scene.turn()
    scene.turn()
    assert scene.begun == ["first"], "one long step in a turn"
    scene.arrive("newcomer")
    scene.turn()
    scene.turn()
    assert scene.begun[1:] == ["crowded", "newcomer"]


def test_of_those_that_go_on_the_cheapest_is_first_and_a_long_step_the_last(
    scene: Scene, long_steps: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on: list[str] = []
    go_on = scene.thread._go_on

    def go_on_and_tell(handshake: waiting_room.Handshake) -> None:
        went_on.append(handshake.group)
        go_on(handshake)

    monkeypatch.setattr(scene.thread, "_go_on", go_on_and_tell)
    long_steps.look_s = 0.0
    peers = [scene.arrive(group) for group in ("crowded", "crowded", "lone")]
    scene.turn()
    scene.turn()
    assert sorted(went_on) == ["crowded", "crowded", "lone"]
    long_steps.look_s = 1.5 * LONG_STEP_S
    went_on.clear()
    for peer in peers:
        peer.sendall(b"\x03\x01")
    for _ in peers:
        scene.turn()
    assert went_on == ["lone", "crowded", "crowded"]


def test_a_long_step_costs_an_address_more_unless_the_handshake_is_finished(
    scene: Scene, long_steps: Clock
) -> None:
    room = scene.thread._room
    scene.arrive("address")
    scene.turn()
    scene.turn()
    assert room._cost == {"address": 2 * COST_BEGUN}
    (handshake,) = scene.thread._begun.values()
    room.finish(handshake)
    assert room._cost == {"address": COST_FINISHED}
