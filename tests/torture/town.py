"""People with real profiles at a real relay; whatever they send and print goes into a ledger."""

import io
import re
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saltline.client.cli import run
from tests.client.programs import House, Ran
from tests.torture.ledger import Ledger
from tests.torture.straced import run_traced

_TEXT = re.compile(r"text (\d+)")


def here(profile: Path, *arguments: str) -> Ran:
    """`saltline` in this process. Raises AssertionError for a traceback."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(["--profile", str(profile), *arguments])
    out.flush()
    buffer = out.buffer
    assert isinstance(buffer, io.BytesIO)
    ran = Ran(code, buffer.getvalue().decode(), err.getvalue())
    assert "Traceback" not in ran.err and "Internal" not in ran.err, ran.err
    return ran


def fine(profile: Path, *arguments: str) -> Ran:
    """The same, and it did what was asked."""
    ran = here(profile, *arguments)
    assert ran.code == 0, (arguments, ran)
    return ran


@dataclass
class Town:
    """A relay, its people, and what they said. A lane is `ada>bob` or `ada>#lobby>bob`."""

    house: House
    listeners: tuple[str, ...] = ()  # who reads the rooms
    ledger: Ledger = field(default_factory=Ledger)
    printed_again: int = 0
    _numbers: Counter[str] = field(default_factory=Counter)

    def profile(self, name: str) -> Path:
        return self.house.folder / name

    def settle(self, *names: str) -> None:
        """New accounts, with their prekeys at the relay."""
        for name in names:
            self.house.user(name)

    def stock(self, *names: str) -> None:
        """As many prekeys as a process of its own would publish: none has to any more."""
        for name in names:
            assert run_traced([], self.profile(name), "recv").code == 0

    def befriend(self, one: str, other: str) -> None:
        """They have written to each other: no set-up and no request is left to be done."""
        for author, reader in ((one, other), (other, one)):
            fine(self.profile(author), "send", reader, "-m", "hello")
            fine(self.profile(reader), "recv")

    # --- sending -------------------------------------------------------------------------------

    def next(self, author: str, conversation: str) -> int:
        """The number of the next text of an author in a conversation; it is about to leave."""
        self._numbers[author] += 1
        number = self._numbers[author]
        for lane in self._lanes(author, conversation):
            self.ledger.sent(lane, number)
        return number

    def acknowledged(self, author: str, conversation: str, number: int) -> None:
        """Its author's disk has it."""
        for lane in self._lanes(author, conversation):
            self.ledger.acknowledged(lane, number)

    def _lanes(self, author: str, conversation: str) -> list[str]:
        if conversation.startswith("#"):
            return [f"{author}>{conversation}>{reader}" for reader in self.listeners]
        return [f"{author}>{conversation}"]

    def say(self, author: str, reader: str) -> int:
        """A text in private, on the relay when this returns."""
        number = self.next(author, reader)
        fine(self.profile(author), "send", reader, "-m", f"text {number}")
        self.acknowledged(author, reader, number)
        return number

    def holds(self, author: str, conversation: str, number: int) -> bool:
        """Whether the author's own timeline has a text; in it, never twice."""
        name = conversation if conversation.startswith("#") else f"@{conversation}"
        ran = here(self.profile(author), "history", name, "--limit", "8", "--json")
        if ran.code == 6:  # there is nothing yet
            return False
        assert ran.code == 0, ran
        found = [each["body"] for each in ran.records if each.get("from") == author]
        assert found.count(f"text {number}") <= 1, found
        return f"text {number}" in found

    # --- receiving -----------------------------------------------------------------------------

    def shown(self, reader: str, *outputs: list[dict[str, Any]], may_repeat: bool = False) -> None:
        """What `recv` printed, run after run.

        `may_repeat`: a run was killed, perhaps after it printed lines and before it said so to its
        vault; the next run prints the same lines again, with the same ids.
        """
        before: list[str] = []
        for records in outputs:
            said = [each for each in records if each["type"] == "message"]
            again = [each["id"] for each in said if each["id"] in before]
            if again:
                assert may_repeat, f"printed twice: {said}"
                assert again == before[-len(again) :], "printed again, and not from there on"
                self.printed_again += len(again)
            for record in said:
                found = _TEXT.fullmatch(record["body"])
                if found and record["id"] not in before and self._counts(record, reader):
                    self.ledger.shown(lane_of(record, reader), int(found[1]))
            before = [each["id"] for each in said]

    def _counts(self, record: dict[str, Any], reader: str) -> bool:
        return record["encrypted"] or reader in self.listeners

    def receive(self, reader: str) -> None:
        """Everything that waits for somebody is taken in and printed."""
        self.shown(reader, fine(self.profile(reader), "recv", "--once", "--json").records)

    def check_timeline(self, reader: str, conversation: str) -> None:
        """What the vault shows of others: each text once, in order."""
        ran = fine(self.profile(reader), "history", conversation, "--limit", "100000", "--json")
        last: dict[str, int] = {}
        for record in ran.records:
            found = _TEXT.fullmatch(record["body"])
            if record["type"] == "message" and found:
                assert int(found[1]) > last.get(record["from"], 0), (reader, record)
                last[record["from"]] = int(found[1])
        assert not [each for each in ran.records if each["type"] in ("notice", "alert")], ran.out


def lane_of(record: dict[str, Any], reader: str) -> str:
    """Where a line came from."""
    if record["conversation"].startswith("#"):
        return f"{record['from']}>{record['conversation']}>{reader}"
    return f"{record['from']}>{reader}"
