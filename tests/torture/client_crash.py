"""kill -9 of the real client before every call that changes its disk or the wire.

After each: the next start is clean, and nothing is lost, shown twice or out of order. The moments
are those of a run that was left alone; what follows them is one run more than they are.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from saltline.server.admin import ask
from saltline.server.administration import Code, ResetUser
from tests.client.programs import House
from tests.torture.served import serve
from tests.torture.straced import (
    Traced,
    moments,
    need_strace,
    run_traced,
    spread,
    watching,
)
from tests.torture.town import Town, fine, here
from tests.torture.trial import Figures, Scale

LOBBY = "#lobby"
EVERY = 100_000
# Moments more, where none of those that were chosen came again.
SPARE = 4
Strace = list[str]


class Scene(Protocol):
    """One thing that a person does, again and again; `play` does it once, and what comes after."""

    def play(self, strace: Strace) -> Traced: ...


@dataclass
class Sending:
    """A private message, to one person or each time to another."""

    town: Town
    to_strangers: bool = False
    strangers: int = 0

    def play(self, strace: Strace) -> Traced:
        reader = "bob"
        if self.to_strangers:
            self.strangers += 1
            reader = f"stranger{self.strangers}"
            self.town.settle(reader)
        traced = write(self.town, strace, "alice", reader)
        self.town.receive(reader)
        return traced


@dataclass
class Posting:
    """A message in a room."""

    town: Town

    def play(self, strace: Strace) -> Traced:
        traced = write(self.town, strace, "alice", LOBBY)
        self.town.receive("bob")
        return traced


@dataclass
class Receiving:
    """Three messages taken in, printed and acknowledged; their receipts leave."""

    town: Town

    def play(self, strace: Strace) -> Traced:
        for _ in range(3):
            self.town.say("alice", "bob")
        bob = self.town.profile("bob")
        traced = run_traced(strace, bob, "recv", "--once", "--json")
        next_start = fine(bob, "recv", "--once", "--json")
        self.town.shown("bob", traced.records, next_start.records, may_repeat=traced.was_killed)
        return traced


@dataclass
class Serving:
    """`recv --follow` holds the profile, prints, and queues what other commands send."""

    town: Town

    def play(self, strace: Strace) -> Traced:
        self.town.receive("olga")  # what the others posted: each run prints as many lines
        return serve(self.town, strace, "olga", "bob")


@dataclass
class Registering:
    """A first run; a kill leaves nothing, or a profile that the same command finishes."""

    town: Town
    resets: str = ""  # whose key was lost, if this is no new account
    count: int = 0

    def play(self, strace: Strace) -> Traced:
        self.count += 1
        name = self.resets or f"new{self.count}"
        # In the same place each time: moments are named by their files.
        profile = self.town.profile("at first")
        shutil.rmtree(profile, ignore_errors=True)
        house = self.town.house
        where = ["--relay", str(house.address), "--pin", house.pin, "--user", name]
        words = ["register", *where, "--no-passphrase"]
        if self.resets:
            words += ["--invite", reset_code(house, name)]
        traced = run_traced(strace, profile, *words)
        if profile.exists():
            between = here(profile, "whoami")
            assert between.code == 0 or "saltline register" in between.err, between
        fine(profile, *words)
        assert fine(profile, "whoami", "--json").records[0]["user"] == name
        if self.resets:
            assert fine(profile, "status", "--json").records[0]["connection"] == "online"
        else:
            fine(self.town.profile("alice"), "send", name, "-m", "welcome")
            (welcome,) = [each for each in fine(profile, "recv", "--json").records
                          if each["conversation"] == "@alice"]  # fmt: skip
            assert welcome["body"] == "welcome"
        return traced


def reset_code(house: House, name: str) -> str:
    """What the admin gives to somebody who lost their key."""
    answer = ask(house.folder / "relay", ResetUser(name, int(time.time() * 1000) + 3_600_000))
    assert isinstance(answer, Code)
    return answer.code


def write(town: Town, strace: Strace, author: str, conversation: str) -> Traced:
    """Send under strace; start again; send what is not there, as who looks before sending again."""
    words = ["post" if conversation.startswith("#") else "send", conversation, "--json"]
    number = town.next(author, conversation)
    profile = town.profile(author)
    traced = run_traced(strace, profile, *words, "-m", f"text {number}")
    fine(profile, "recv", "--once")
    is_held = town.holds(author, conversation, number)
    assert is_held or not traced.records, f"said to be queued, and lost: {traced}"
    if not is_held:
        fine(profile, *words, "-m", f"text {number}")
    town.acknowledged(author, conversation, number)
    return traced


def torment(scene: Scene, log: Path, most: int) -> tuple[int, int, int]:
    """(moments of a run that was left alone, tried ones, kills)."""
    assert scene.play(watching(log)).code in (0, 143)
    found = moments(log)
    chosen = spread(found, most)
    spare = [each for each in spread(found, SPARE) if each not in chosen]
    tried = kills = 0
    for moment in (*chosen, *spare):
        if tried >= len(chosen) and kills:
            break  # the others are for who was never killed
        tried += 1
        try:
            kills += scene.play(moment.strace("signal=KILL")).was_killed
        except AssertionError as error:
            error.add_note(f"after a kill before {moment}")
            raise
    return len(found), tried, kills


def run(scale: Scale, folder: Path) -> Figures:
    """Sending, posting, receiving and serving: every moment; the quick form a few of each."""
    need_strace()
    with House.running(folder) as house:
        town = Town(house, listeners=("bob", "olga"))
        town.settle("alice", "bob", "olga")
        town.stock("alice", "bob", "olga")
        town.befriend("alice", "bob")
        town.befriend("olga", "bob")
        scenes: list[tuple[str, Scene, int]] = [
            ("sending", Sending(town), 3),
            ("sending first", Sending(town, to_strangers=True), 1),
            ("posting", Posting(town), 1),
            ("receiving", Receiving(town), 3),
            ("serving", Serving(town), 2),
        ]
        figures = torment_all(scenes, folder / "calls", scale, EVERY)
        town.receive("bob")
        town.receive("olga")
        for conversation in ("@alice", "@olga", LOBBY):
            town.check_timeline("bob", conversation)
        town.check_timeline("olga", "@bob")
        return {**figures, **town.ledger.hold(10), "printed again": town.printed_again}


def run_set_up(scale: Scale, folder: Path) -> Figures:
    """A first run, and one with a reset code: some moments, evenly from first to last."""
    need_strace()
    with House.running(folder) as house:
        town = Town(house)
        town.settle("alice", "vera")
        scenes: list[tuple[str, Scene, int]] = [
            ("registering", Registering(town), 2),
            ("resetting", Registering(town, "vera"), 1),
        ]
        return torment_all(scenes, folder / "calls", scale, 100)


def torment_all(
    scenes: Sequence[tuple[str, Scene, int]], log: Path, scale: Scale, most: int
) -> dict[str, int | float | str]:
    """The kills of each; of each at most `most` moments, or in the quick form its own number."""
    figures: dict[str, int | float | str] = {}
    total = tried = 0
    for name, scene, quick in scenes:
        found, scene_tried, kills = torment(scene, log, scale.of(quick, most))
        figures[name] = f"{kills} of {found}"
        total, tried = total + kills, tried + scene_tried
        least = max(1, scale.of(1, 4 * scene_tried // 5))
        assert kills >= least, f"{name}: only {kills} of {scene_tried} were killed"
    # A run may make a call or two less than the one that was watched: these moments did not come.
    missed = tried - total
    missed_max = scale.of(tried // 5 + 1, tried // 20)
    assert missed <= missed_max, f"only {total} of {tried} were killed: {figures}"
    return {"kills": total, "moments that did not come": missed, **figures}
