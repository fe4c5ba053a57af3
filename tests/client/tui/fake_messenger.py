"""A messenger without network, vault or keys, driven from both sides by a test."""

import hashlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from saltline.client.model import (
    ConnectionChanged,
    ConnectionState,
    ContactInfo,
    ConversationChanged,
    ConversationSummary,
    Delivery,
    Event,
    ExitCode,
    Line,
    LineAdded,
    LineChanged,
    LineKind,
    PresenceChanged,
    Refused,
    Status,
    Trust,
)
from saltline.protocol.to_client import Member, RoomInfo

Result = TypeVar("Result")

START_MS = 1_778_587_200_000  # Tue 12 May 2026 12:00:00 UTC
OWN_FINGERPRINT = " ".join(["0a1b 2c3d 4e5f 6071"] * 4)


def fingerprint_of(name: str) -> str:
    """64 digits that look like a key's."""
    digits = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
    return " ".join(digits[at : at + 4] for at in range(0, 64, 4))


def number_of(name: str) -> str:
    """60 digits in twelve groups."""
    digits = str(int(hashlib.sha512(name.encode("utf-8", "replace")).hexdigest(), 16))[:60]
    return " ".join(digits[at : at + 5] for at in range(0, 60, 5))


class FakeMessenger:
    """Implements Messenger over lists; `calls` and `lines_read` say what was asked of it."""

    def __init__(self, username: str = "ada") -> None:
        self.username = username
        self.calls: list[tuple[object, ...]] = []
        self.lines_read = 0
        self.reads: Counter[str] = Counter()
        self.refusals: dict[str, Refused] = {}  # the method that refuses next, and how
        self.held: list[Callable[[], None]] | None = None  # a list: answers wait for `answer()`
        self.connection = ConnectionChanged(ConnectionState.ONLINE)
        self.now_ms = START_MS
        self.members: dict[str, Sequence[Member]] = {}
        self.room_list: Sequence[RoomInfo] = ()
        self.callbacks: list[Callable[[Event], None]] = []
        self._lines: dict[str, list[Line]] = {}
        self._by_row: dict[int, Line] = {}
        self._people: dict[str, ContactInfo] = {}
        self._summaries: dict[str, ConversationSummary] = {}
        self._row = 0

    # --- The test's side: what happens --------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Tell whoever watches."""
        for callback in list(self.callbacks):
            callback(event)

    def meets(
        self, name: str, trust: Trust = Trust.FIRST_SEEN, *, request: bool = False
    ) -> ContactInfo:
        """The vault gets to know a person, or something new about one."""
        info = ContactInfo(
            name,
            trust,
            "" if trust is Trust.UNKNOWN else fingerprint_of(name),
            "" if trust is Trust.UNKNOWN else number_of(name),
            1,
            request,
            fingerprint_of(name + " anew") if trust is Trust.CHANGED else "",
        )
        self._people[name] = info
        self._keep_summary(f"@{name}", trust=trust, request=request)
        self.emit(ConversationChanged(f"@{name}"))
        return info

    def enters(self, room: str, *, joined: bool = True) -> None:
        """The profile becomes a member, or stops being one."""
        self._keep_summary(room, joined=joined)
        self.emit(ConversationChanged(room))

    def arrives(
        self,
        conversation: str,
        author: str,
        body: str,
        *,
        kind: LineKind = LineKind.TEXT,
        sent_ms: int | None = None,
        reason: str = "",
        silent: bool = False,
    ) -> Line:
        """Somebody else's line, or a notice."""
        line = self._add(conversation, author, body, kind, sent_ms=sent_ms, reason=reason)
        summary = self._summaries[conversation]
        mention = conversation.startswith("#") and self.username in body
        self._summaries[conversation] = replace(
            summary,
            unread=summary.unread + (kind is LineKind.TEXT),
            mentions=summary.mentions + mention,
        )
        if not silent:
            self.emit(LineAdded(conversation, line.row))
        return line

    def reaches(self, line: Line, delivery: Delivery, reason: str = "") -> None:
        """An own message comes further, or fails."""
        changed = replace(self._by_row[line.row], delivery=delivery, reason=reason)
        self._by_row[line.row] = changed
        lines = self._lines[line.conversation]
        lines[bisect_left([each.row for each in lines], line.row)] = changed
        code = ExitCode.UNKNOWN_NAME if delivery is Delivery.FAILED else None
        self.emit(LineChanged(line.conversation, line.row, code))

    def connects(
        self, state: ConnectionState, detail: str = "", retry: float | None = None
    ) -> None:
        """The link changes."""
        self.connection = ConnectionChanged(state, detail, retry)
        self.emit(self.connection)

    def presence(self, name: str, online: bool) -> None:
        """A co-member comes or goes."""
        self.emit(PresenceChanged(name, online))

    def answer(self) -> None:
        """Answer what waits."""
        waiting, self.held = self.held or [], None
        for each in waiting:
            each()

    # --- The screen's side: Messenger ---------------------------------------------------------

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """See Messenger."""
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def status(self) -> Status:
        """See Messenger."""
        own = [line for line in self._by_row.values() if line.delivery is Delivery.QUEUED]
        online = self.connection.state is ConnectionState.ONLINE
        return Status(
            username=self.username,
            relay="relay.example:7443",
            relay_id="ab" * 32,
            pin="sha256:" + "cd" * 32,
            fingerprint=OWN_FINGERPRINT,
            connection=self.connection.state,
            detail=self.connection.detail,
            round_trip_ms=23 if online else None,
            queued=len(own),
            unread=sum(each.unread for each in self._summaries.values()),
        )

    def conversations(self) -> Sequence[ConversationSummary]:
        """See Messenger."""
        self.reads["conversations"] += 1
        return list(self._summaries.values())

    def contacts(self) -> Sequence[ContactInfo]:
        """See Messenger."""
        return list(self._people.values())

    def contact(self, username: str) -> ContactInfo:
        """See Messenger."""
        self.reads["contact"] += 1
        stranger = ContactInfo(username, Trust.UNKNOWN, "", "", 0, False)
        return self._people.get(username, stranger)

    def fetch_contact(self, username: str) -> "Future[ContactInfo]":
        """See Messenger."""
        self.calls.append(("fetch_contact", username))

        def found() -> ContactInfo:
            self._may("fetch_contact")
            return self._people.get(username) or self.meets(username)

        return self._future(found)

    def own_identity(self) -> ContactInfo:
        """See Messenger."""
        return ContactInfo(self.username, Trust.VERIFIED, OWN_FINGERPRINT, "", 1, False)

    def line(self, row: int) -> Line | None:
        """See Messenger."""
        self.reads["line"] += 1
        return self._by_row.get(row)

    def page(
        self, conversation: str, *, before: int | None = None, after: int | None = None, limit: int
    ) -> Sequence[Line]:
        """See Messenger."""
        self.reads["page"] += 1
        lines = self._lines.get(conversation, [])
        if after is not None:
            first = bisect_right(lines, after, key=lambda line: line.row)
            found = lines[first : first + limit]
        else:
            end = len(lines)
            if before is not None:
                end = bisect_left(lines, before, key=lambda line: line.row)
            found = lines[max(0, end - limit) : end]
        self.lines_read += len(found)
        return found

    def count(self, conversation: str, *, after: int = 0) -> int:
        """See Messenger."""
        self.reads["count"] += 1
        lines = self._lines.get(conversation, [])
        return len(lines) - bisect_right(lines, after, key=lambda line: line.row)

    def search(self, query: str, conversation: str | None, limit: int) -> Sequence[Line]:
        """See Messenger."""
        words = query.lower().split()
        found = [
            line
            for line in self._by_row.values()
            if conversation in (None, line.conversation)
            and all(word in line.body.lower() for word in words)
        ]
        return found[::-1][:limit]

    def send(self, username: str, text: str) -> Line:
        """See Messenger."""
        self._may("send")
        self.calls.append(("send", username, text))
        self._keep_summary(f"@{username}")
        return self._own(f"@{username}", text)

    def post(self, room: str, text: str) -> Line:
        """See Messenger."""
        self._may("post")
        self.calls.append(("post", room, text))
        return self._own(room, text)

    def retry(self, row: int) -> None:
        """See Messenger."""
        self._may("retry")
        self.calls.append(("retry", row))
        self.reaches(self._by_row[row], Delivery.QUEUED)

    def mark_read(self, conversation: str, row: int) -> None:
        """See Messenger."""
        self.calls.append(("mark_read", conversation, row))
        left = self.count(conversation, after=row)
        self._keep_summary(conversation, unread=left, mentions=0, read_row=row)
        self.emit(ConversationChanged(conversation))

    def accept(self, username: str) -> None:
        """See Messenger."""
        self._may("accept")
        self.calls.append(("accept", username))
        self.meets(username)

    def block(self, username: str) -> None:
        """See Messenger."""
        self.calls.append(("block", username))
        self.meets(username, Trust.BLOCKED)

    def unblock(self, username: str) -> None:
        """See Messenger."""
        self.calls.append(("unblock", username))
        self.meets(username)

    def verify(self, username: str, number: str | None = None) -> ContactInfo:
        """See Messenger."""
        self._may("verify")
        self.calls.append(("verify", username, number))
        if number is not None and number.replace(" ", "") != number_of(username).replace(" ", ""):
            raise Refused(f"That is not the safety number of you and {username}.")
        return self.meets(username, Trust.VERIFIED)

    def trust(self, username: str, number: str) -> ContactInfo:
        """See Messenger."""
        self._may("trust")
        self.calls.append(("trust", username, number))
        return self.meets(username, Trust.FIRST_SEEN)

    def join(self, room: str) -> "Future[None]":
        """See Messenger."""
        self.calls.append(("join", room))

        def done() -> None:
            self._may("join")
            self.enters(room)

        return self._future(done)

    def leave(self, room: str) -> "Future[None]":
        """See Messenger."""
        self.calls.append(("leave", room))
        return self._future(lambda: self.enters(room, joined=False))

    def who(self, room: str) -> "Future[Sequence[Member]]":
        """See Messenger."""
        return self._future(lambda: self.members.get(room, ()))

    def rooms(self) -> "Future[Sequence[RoomInfo]]":
        """See Messenger."""
        return self._future(lambda: self.room_list)

    def reconnect(self) -> None:
        """See Messenger."""
        self.calls.append(("reconnect",))

    def close(self) -> None:
        """See Messenger."""
        self.calls.append(("close",))

    # --- Inside -------------------------------------------------------------------------------

    def called(self, name: str) -> list[tuple[object, ...]]:
        """The calls of one method, in order."""
        return [call for call in self.calls if call[0] == name]

    def _may(self, method: str) -> None:
        refusal = self.refusals.pop(method, None)
        if refusal is not None:
            raise refusal

    def _future(self, work: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except Refused as refused:
                future.set_exception(refused)

        if self.held is None:
            run()
        else:
            self.held.append(run)
        return future

    def _keep_summary(self, name: str, **changes: object) -> None:
        empty = ConversationSummary(name, Trust.UNKNOWN, 0, 0, 0, False, False, 0)
        person = self._people.get(name[1:])
        if person is not None:
            empty = replace(empty, trust=person.trust)
        known = self._summaries.get(name, empty)
        self._summaries[name] = replace(known, **changes)  # type: ignore[arg-type]

    def _own(self, conversation: str, text: str) -> Line:
        line = self._add(conversation, self.username, text, LineKind.TEXT, mine=True)
        self.emit(LineAdded(conversation, line.row))
        return line

    def _add(
        self,
        conversation: str,
        author: str,
        body: str,
        kind: LineKind,
        *,
        mine: bool = False,
        sent_ms: int | None = None,
        reason: str = "",
    ) -> Line:
        self._row += 1
        row = self._row
        line = Line(
            row=row,
            conversation=conversation,
            kind=kind,
            author=author,
            mine=mine,
            body=body,
            sent_ms=self.now_ms if sent_ms is None else sent_ms,
            received_ms=self.now_ms,
            id=hashlib.sha256(str(row).encode()).digest()[:16],
            delivery=Delivery.QUEUED if mine else Delivery.NONE,
            reason=reason,
        )
        self._lines.setdefault(conversation, []).append(line)
        self._by_row[row] = line
        self._keep_summary(conversation, last_row=row)
        return line
