"""What people said, what they were shown, and what the relay and the clients promised meanwhile.

Everything is noted from outside: what a client's vault shows after a commit, and what goes over the
wires. Whatever contradicts a promise raises Broken at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from saltline.client.model import Delivery, Event, Line, LineAdded, LineChanged, LineKind
from saltline.client.vault import views
from saltline.client.vault.timeline import LINE_COLUMNS, to_line
from tests.simulation.client_machine import ClientMachine
from tests.simulation.laboratory import require

_NOT_OPENED: Final = "from the relay could not be opened"
_RANK: Final = {
    Delivery.NONE: 0,
    Delivery.QUEUED: 1,
    Delivery.FAILED: 1,
    Delivery.RELAYED: 2,
    Delivery.DELIVERED: 3,
    Delivery.READ: 4,
}


@dataclass
class Said:
    """A text of somebody's, private or public; committed to the author's vault."""

    author: str
    conversation: str  # as its author names it
    text: str
    id: bytes
    row: int
    place: int  # in the order in which the author sent to this conversation
    delivery: Delivery = Delivery.QUEUED
    number: int = 0


@dataclass
class Diary:
    """What one client has shown, row by row."""

    rows: dict[int, Line] = field(default_factory=dict)
    last_row: int = 0
    heard: dict[str, list[Said]] = field(default_factory=dict)  # private, by author, in order
    read: set[str] = field(default_factory=set)  # texts that the person has read
    numbers: dict[str, int] = field(default_factory=dict)  # room -> the last that was shown


class Ledger:
    """The whole town's."""

    def __init__(self) -> None:
        self.typed: set[str] = set()  # texts that somebody tried to send
        self.said: dict[str, Said] = {}  # by text: every text is said once
        self._counts: dict[tuple[str, str], int] = {}
        self.diaries: dict[str, Diary] = {}
        self.entries: dict[tuple[str, int], tuple[str, LineKind, str]] = {}
        self.left: set[tuple[str, str]] = set()  # (who, room): who once wished to leave it
        self.removed: set[str] = set()  # by the admin, or so the admin asked
        self.has_slept = False
        self.shown = 0

    # --- the clients -----------------------------------------------------------------------------

    def client_committed(self, client: ClientMachine, events: Sequence[Event]) -> None:
        """Lines were added or changed."""
        diary = self.diaries.setdefault(client.name, Diary())
        if any(isinstance(each, LineAdded) for each in events):
            self._read_on(client, diary)
        for row in sorted({each.row for each in events if isinstance(each, LineChanged)}):
            assert client.vault is not None
            line = views.line(client.vault, row)
            require(line is not None, f"{client.name}'s line {row} does not vanish")
            assert line is not None
            self._changed(client, diary, line)

    def reopened(self, client: ClientMachine) -> None:
        """After a death: all that was committed is there, and perhaps what was being committed."""
        diary = self.diaries.setdefault(client.name, Diary())
        assert client.vault is not None
        rows = {line.row: line for line in _lines(client, 0)}
        for row in diary.rows:
            require(row in rows, f"{client.name}'s line {row} survives its death")
            self._changed(client, diary, rows[row])
        self._read_on(client, diary)

    def _read_on(self, client: ClientMachine, diary: Diary) -> None:
        for line in _lines(client, diary.last_row):
            diary.rows[line.row] = line
            diary.last_row = line.row
            self._added(client, diary, line)

    def _added(self, client: ClientMachine, diary: Diary, line: Line) -> None:
        name = client.name
        if line.kind in (LineKind.NOTICE, LineKind.ALERT, LineKind.UNSUPPORTED):
            self._judge_notice(name, line)
        elif line.conversation.startswith("#"):
            self._added_to_room(name, diary, line)
        elif line.mine:
            self._note_said(name, line)
        else:
            self._heard(name, diary, line)

    def _judge_notice(self, name: str, line: Line) -> None:
        """In a town where nobody lies, only those who left a room miss anything."""
        if _NOT_OPENED in line.body and self.removed:  # it came from who is nobody now
            return
        clock = line.body.startswith("This computer's clock")
        if clock and self.has_slept:  # a welcome of last week, read on waking: said and mended
            return
        excused = line.kind is LineKind.NOTICE and (name, line.conversation) in self.left
        if self._concerns_removed(name, line.conversation):  # a key was ended, and that is said
            return
        require(excused, f"{name} has no reason to read in {line.conversation}: {line.body}")

    def _concerns_removed(self, name: str, conversation: str) -> bool:
        """Somebody whom the admin removed is one of the two."""
        return name in self.removed or conversation[1:] in self.removed

    def _note_said(self, name: str, line: Line) -> None:
        require(line.body in self.typed, f"{name} says only what was typed")
        require(line.body not in self.said, f"{name} says it once: {line.body[:40]}")
        place = self._counts.get((name, line.conversation), 0)
        self._counts[name, line.conversation] = place + 1
        self.said[line.body] = Said(
            name, line.conversation, line.body, line.id, line.row, place, line.delivery
        )

    def _heard(self, name: str, diary: Diary, line: Line) -> None:
        author = line.conversation[1:]
        said = self.said.get(line.body)
        require(said is not None, f"{name} is shown what was said: {line.body[:40]}")
        assert said is not None
        require(
            (said.author, said.conversation, said.id) == (author, f"@{name}", line.id),
            f"{name} is shown it as it was said, by whom and to whom it was",
        )
        heard = diary.heard.setdefault(author, [])
        require(said not in heard, f"{name} is shown it once: {line.body[:40]}")
        require(
            said.place == len(heard) or author in self.removed,
            f"{name} is shown what {author} said in order: {said.place} is not {len(heard)}",
        )
        heard.append(said)
        self.shown += 1

    # --- rooms -----------------------------------------------------------------------------------

    def _added_to_room(self, name: str, diary: Diary, line: Line) -> None:
        if line.mine and line.kind is LineKind.TEXT and not line.number:
            self._note_said(name, line)
            return
        if line.kind is LineKind.TEXT:
            self._require_said_in_public(name, line)
        self._number(name, diary, line)

    def _require_said_in_public(self, name: str, line: Line) -> None:
        said = self.said.get(line.body)
        require(
            said is not None
            and (said.author, said.conversation) == (line.author, line.conversation),
            f"{name} is shown in {line.conversation} what was said there: {line.body[:40]}",
        )
        assert said is not None
        require(said.id == line.id, "a post keeps its id")

    def _number(self, name: str, diary: Diary, line: Line) -> None:
        """Every member sees the same under the same number, and each number once."""
        room, number = line.conversation, line.number
        what = (line.author, line.kind, line.body)
        known = self.entries.setdefault((room, number), what)
        require(known == what, f"entry {number} of {room} is one: {known} or {what}")
        others = [
            each.row
            for each in diary.rows.values()
            if each.conversation == room and each.number == number and each.row != line.row
        ]
        require(number > 0 and not others, f"{name} is shown entry {number} of {room} once")
        if not line.mine:
            last = diary.numbers.get(room, 0)
            require(number > last, f"{name} is shown {room} in order: {number} after {last}")
            diary.numbers[room] = number
            self.shown += line.kind is LineKind.TEXT

    # --- marks -----------------------------------------------------------------------------------

    def _changed(self, client: ClientMachine, diary: Diary, line: Line) -> None:
        name, before = client.name, diary.rows.get(line.row)
        if before is None:
            self._read_on(client, diary)
            return
        diary.rows[line.row] = line
        same = (before.body, before.id, before.author, before.conversation)
        require(
            same == (line.body, line.id, line.author, line.conversation),
            f"{name}'s line {line.row} stays as it was",
        )
        if line.number != before.number:
            require(before.number == 0, f"{name}'s line {line.row} keeps its number")
            self._number(name, diary, line)
        if line.mine and line.kind is LineKind.TEXT:
            self._mark(name, line, before)

    def _mark(self, name: str, line: Line, before: Line) -> None:
        said = self.said[line.body]
        said.delivery, said.number = line.delivery, line.number
        failed = line.delivery is Delivery.FAILED
        require(
            failed or _RANK[line.delivery] >= _RANK[before.delivery],
            f"{name}'s mark goes forward: {before.delivery!r} to {line.delivery!r}",
        )
        if failed:
            excused = (name, said.conversation) in self.left or self._concerns_removed(
                name, said.conversation
            )
            require(excused, f"{name}'s message does not fail: {line.reason}")
        if line.delivery in (Delivery.DELIVERED, Delivery.READ):
            other = self.diaries.get(said.conversation[1:], Diary())
            require(
                said in other.heard.get(name, []), f"{name} reads delivered only if it was shown"
            )
            if line.delivery is Delivery.READ:
                require(said.text in other.read, f"{name} reads read only if it was read")

    # --- the end ---------------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """What was said in private and not shown; what is not marked as delivered."""
        wrong = []
        for said in self.said.values():
            to = said.conversation[1:]
            if said.delivery is Delivery.FAILED or self._concerns_removed(
                said.author, said.conversation
            ):
                continue
            if said.conversation.startswith("#"):
                if said.delivery is not Delivery.RELAYED or not said.number:
                    wrong.append(f"{said.author}'s post is not on the relay: {said.text[:40]}")
                continue
            heard = self.diaries.get(to, Diary()).heard.get(said.author, [])
            if said not in heard:
                wrong.append(f"{to} was not shown {said.author}'s {said.place}: {said.text[:40]}")
            elif said.delivery not in (Delivery.DELIVERED, Delivery.READ):
                wrong.append(f"{said.author} is not told of {said.text[:40]}: {said.delivery!r}")
        return wrong

    def missing_in_rooms(self, name: str, held: dict[str, int]) -> list[str]:
        """What a member of these rooms, held up to these numbers, was not shown of them."""
        diary = self.diaries.get(name, Diary())
        wrong: list[str] = []
        if name in self.removed:
            return wrong
        for room, last in held.items():
            shown = {line.number for line in diary.rows.values() if line.conversation == room}
            shown.discard(0)
            known = {number for of, number in self.entries if of == room}
            if max(known, default=0) > last:
                wrong.append(f"{name} holds {room} up to {last}, of {max(known)}")
            if (name, room) not in self.left and shown:
                gap = {number for number in known if number > min(shown)} - shown
                if gap:
                    wrong.append(f"{name} was not shown {sorted(gap)[:5]} of {room}")
        return wrong


def _lines(client: ClientMachine, after: int) -> list[Line]:
    assert client.vault is not None
    rows = client.vault.rows(f"SELECT {LINE_COLUMNS} FROM lines WHERE row > ? ORDER BY row", after)
    return [to_line(row) for row in rows]
