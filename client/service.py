"""What the headless commands can do, once: for this process, and for others through `control`."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Final, TypeVar

from saltline.client import records, requests
from saltline.client.certificates import format_pin, read_target
from saltline.client.failures import Closed, no_account
from saltline.client.messenger import Client, target_of
from saltline.client.model import (
    ConnectionChanged,
    ConnectionState,
    ContactInfo,
    Delivery,
    Event,
    ExitCode,
    Line,
    LineChanged,
    Refused,
    Trust,
)
from saltline.client.requests import AnyRequest, Reply
from saltline.protocol.names import BadName, Conversation, check_user, parse_conversation

_PAGE: Final = 200
_TAKE_MAX: Final = 200
_CODES_KEPT: Final = 10_000

Result = TypeVar("Result")


class Service:
    """The headless commands on an open client. Any thread may call `perform`.

    A caller is whatever hashable object stands for one command: lines that it took and has not
    reported as printed are given to nobody else.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Wakes whoever waits for an event; tier 1, and no call is made under it.
        self._news = threading.Condition()
        self._event_count = 0
        self._codes: OrderedDict[int, ExitCode] = OrderedDict()
        self._trouble = ""  # why the last connection ended, or did not come about
        self._taker: object | None = None
        self._leaving = False
        self._unsubscribe = client.subscribe(self._note)

    def leave(self) -> None:
        """Whoever waits is sent away; the owner is about to end."""
        self._unsubscribe()
        with self._news:
            self._leaving = True
            self._news.notify_all()

    def gone(self, caller: object) -> None:
        """A caller went away: what it took and did not print can be taken again."""
        with self._news:
            if self._taker is caller:
                self._taker = None
                self._news.notify_all()

    def perform(self, request: AnyRequest, caller: object) -> Iterator[Reply]:
        """Do what is asked. Raises Refused, also after some replies."""
        match request:
            case requests.Account():
                yield Reply(records.of_account(self._client.status(), self._ca_file))
            case requests.GetStatus(timeout_s):
                yield from self._status(timeout_s)
            case requests.ListContacts():
                for contact in self._client.contacts():
                    yield Reply(records.of_contact(contact))
            case requests.ListRooms(timeout_s):
                yield from self._rooms(timeout_s)
            case requests.History(conversation, limit, query):
                yield from self._history(conversation, limit, query)
            case requests.Send():
                yield self._send(request)
            case requests.Await(row, delivery, timeout_s):
                yield from self._await(row, Delivery(delivery), timeout_s)
            case requests.CatchUp(timeout_s):
                self._catch_up(timeout_s)
            case requests.Take(limit, timeout_s):
                yield from self._take(limit, timeout_s, caller)
            case requests.Printed(row):
                self._printed(row, caller)
            case requests.GetContact(username, timeout_s):
                yield Reply(records.of_contact(self._contact(_user(username), timeout_s)))
            case requests.Verify(username, number):
                verified = self._client.verify(_user(username), number)
                yield Reply(records.of_contact(verified))
            case requests.TrustKey(username, number):
                trusted = self._client.trust(_user(username), number)
                yield Reply(records.of_contact(trusted))
            case requests.Relay(address, pin, ca_file):
                yield Reply(self._relay(address, pin, ca_file))

    # --- waiting -------------------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        with self._news:
            if isinstance(event, LineChanged):
                self._codes.pop(event.row, None)  # what was said before is over
                if event.code is not None:
                    self._codes[event.row] = event.code
                while len(self._codes) > _CODES_KEPT:
                    self._codes.popitem(last=False)
            elif isinstance(event, ConnectionChanged) and event.detail:
                self._trouble = event.detail
            self._event_count += 1
            self._news.notify_all()

    def _until(self, found: Callable[[], Result | None], deadline: float) -> Result | None:
        """Look again after every event; None when the time is over. Raises Refused."""
        while True:
            with self._news:
                if self._leaving:
                    raise Closed()
                seen = self._event_count
            result = found()
            if result is not None:
                return result
            with self._news:
                while self._event_count == seen and not self._leaving:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return None
                    self._news.wait(left)

    def _answer(self, future: "Future[Result]", timeout_s: float, what: str) -> Result:
        with suppress(FutureTimeout):
            return future.result(timeout_s)
        silent = f"the relay did not answer within {round(timeout_s, 1):g} s"
        raise Refused(f"{what}: {_ended(self._trouble or silent)}", ExitCode.TIMED_OUT)

    def _online(self, deadline: float, what: str) -> None:
        """Wait until logged in. Raises Refused (UNREACHABLE)."""
        self._trouble = ""
        self._connect()

        def look() -> bool | None:
            self._check_not_refused()
            online = self._client.status().connection is ConnectionState.ONLINE
            return True if online else None

        if self._until(look, deadline) is None:
            detail = self._client.status().detail or self._trouble
            raise Refused(
                f"{what}: {_ended(detail or 'the relay does not answer')}", ExitCode.UNREACHABLE
            )

    def _connect(self) -> None:
        """Be connected, or try now: who asks does not want to wait for the next retry."""
        self._client.start()
        if self._client.status().connection is ConnectionState.OFFLINE:
            self._client.reconnect()

    def _check_not_refused(self, *, waiting: bool = True) -> None:
        """Waiting for a relay that refuses us, or that we refuse, never ends."""
        status = self._client.status()
        if waiting and status.connection is ConnectionState.REFUSED:
            raise Refused(status.detail, ExitCode.UNREACHABLE)

    # --- reading -------------------------------------------------------------------------------

    def _status(self, timeout_s: float) -> Iterator[Reply]:
        refusal: Refused | None = None
        try:
            self._online(time.monotonic() + timeout_s, "Not connected")
        except Refused as error:
            refusal = error
        yield Reply(records.of_status(self._client.status(), self._ca_file))
        if refusal is not None:
            raise refusal

    def _rooms(self, timeout_s: float) -> Iterator[Reply]:
        what = "No list of rooms"
        self._online(time.monotonic() + timeout_s, what)
        known = {each.name: each for each in self._client.conversations()}
        for room in self._answer(self._client.rooms(), timeout_s, what):
            yield Reply(records.of_room(room, known.get(room.room)))

    def _history(self, name: str, limit: int, query: str | None) -> Iterator[Reply]:
        conversation = _conversation(name).name
        if all(each.name != conversation for each in self._client.conversations()):
            raise Refused(f"There is nothing with {conversation} yet.", ExitCode.UNKNOWN_NAME)
        lines: list[Line] = []
        if query is not None:
            lines = list(reversed(self._client.search(query, conversation, limit)))
        else:
            before: int | None = None
            while len(lines) < limit:
                size = min(_PAGE, limit - len(lines))
                page = self._client.page(conversation, before=before, limit=size)
                lines[:0] = page
                if len(page) < size:
                    break
                before = page[0].row
        yield from self._as_replies(lines)

    def _as_replies(self, lines: list[Line]) -> Iterator[Reply]:
        trusts: dict[str, Trust] = {}
        for line in lines:
            if line.author not in trusts:
                trusts[line.author] = self._client.trust_in(line.author)
            yield Reply(records.of_line(line, trusts[line.author]), line.row)

    def _contact(self, username: str, timeout_s: float) -> ContactInfo:
        if username == self._client.status().username:
            raise Refused("That is you; your fingerprint is in: saltline whoami")
        known = self._client.contact(username)
        if known.safety_number:
            return known
        what = f"Nothing is known of {username} yet"
        self._online(time.monotonic() + timeout_s, what)
        return self._answer(self._client.fetch_contact(username), timeout_s, what)

    # --- sending -------------------------------------------------------------------------------

    def _send(self, request: requests.Send) -> Reply:
        conversation = _conversation(request.conversation)
        if conversation.is_room:
            line = self._client.post(conversation.name, request.text, request.id)
        else:
            line = self._client.send(conversation.user, request.text, request.id)
        return Reply(records.of_line(line, Trust.VERIFIED), line.row)

    def _await(self, row: int, wanted: Delivery, timeout_s: float) -> Iterator[Reply]:
        if wanted > Delivery.QUEUED:
            self._connect()
        deadline = time.monotonic() + timeout_s
        done = self._until(lambda: self._progress(row, wanted), deadline)
        line = done or self._client.line(row)
        if line is None:
            raise Refused("There is no such message.", ExitCode.UNKNOWN_NAME)
        yield from self._as_replies([line])
        refusal = self._held_back(line, wanted, timeout_s)
        if refusal is not None:
            raise refusal

    def _progress(self, row: int, wanted: Delivery) -> Line | None:
        """The line, when there is nothing more to wait for."""
        line = self._client.line(row)
        if line is None or line.delivery >= wanted:  # FAILED is the greatest
            return line
        decided = self._codes.get(row) is ExitCode.NOT_TRUSTED
        refused = self._client.status().connection is ConnectionState.REFUSED
        return line if decided or refused else None

    def _held_back(self, line: Line, wanted: Delivery, timeout_s: float) -> Refused | None:
        """Why a message is not where it should be."""
        code = self._codes.get(line.row)
        if line.delivery is Delivery.FAILED:
            if code is None:
                trust = self._client.trust_in(line.conversation.removeprefix("@"))
                doubtful = trust in (Trust.CHANGED, Trust.BLOCKED)
                code = ExitCode.NOT_TRUSTED if doubtful else ExitCode.USAGE
            return Refused(line.reason or "Not sent.", code)
        if line.delivery >= wanted:
            return None
        status = self._client.status()
        if line.delivery is Delivery.QUEUED:
            safe = "It is queued on this disk and leaves by itself later."
            reason = line.reason or status.detail
        else:
            safe, reason = "It is on the relay.", ""
        if status.connection is ConnectionState.REFUSED:
            return Refused(f"{_ended(status.detail)} {safe}", ExitCode.UNREACHABLE)
        if code is ExitCode.NOT_TRUSTED:
            return Refused(f"{_ended(line.reason)} The text waits on this disk until then.", code)
        goal = "on the relay" if wanted is Delivery.RELAYED else wanted.name.lower()
        because = f" ({reason.rstrip('.')})" if reason else ""
        return Refused(
            f"Not {goal} within {round(timeout_s, 2):g} s{because}. {safe}",
            ExitCode.LIMITED if code is ExitCode.LIMITED else ExitCode.TIMED_OUT,
        )

    @property
    def _ca_file(self) -> str:
        account = self._client.account
        return "" if account is None else account.ca_file

    def _relay(self, address: str | None, pin: str | None, ca_file: str | None) -> records.Record:
        account = self._client.account
        if account is None:
            raise no_account()
        target = target_of(account)
        if (address, pin, ca_file) != (None, None, None):
            target = read_target(address or str(target.address), pin, ca_file, before=target)
            self._client.change_relay(target)
        shown_pin = format_pin(target.pin) if target.pin else ""
        return records.of_relay(str(target.address), shown_pin, target.ca_file)

    # --- receiving -----------------------------------------------------------------------------

    def _catch_up(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._online(deadline, "Not connected")
        left = max(0.0, deadline - time.monotonic())
        self._answer(self._client.when_idle(), left, "Not everything was exchanged")

    def _take(self, limit: int, timeout_s: float, caller: object) -> Iterator[Reply]:
        size = min(limit, _TAKE_MAX)

        def look() -> list[Line] | None:
            with self._news:
                if self._taker not in (None, caller):
                    return None
                self._taker = caller
            lines = list(self._client.unprinted(size))
            if not lines:
                self.gone(caller)
                self._check_not_refused(waiting=timeout_s > 0)
            return lines or None

        if timeout_s > 0:
            self._client.start()
        lines = self._until(look, time.monotonic() + timeout_s)
        yield from self._as_replies(lines or [])

    def _printed(self, row: int, caller: object) -> None:
        if row:
            self._client.mark_printed(row)
        self.gone(caller)


def _conversation(name: str) -> Conversation:
    try:
        return parse_conversation(name)
    except BadName as error:
        raise Refused(str(error)) from None


def _ended(sentence: str) -> str:
    """With a full stop, so that another sentence can follow."""
    return sentence if sentence.endswith(".") else sentence + "."


def _user(name: str) -> str:
    try:
        return check_user(name.removeprefix("@"))
    except BadName as error:
        raise Refused(str(error)) from None
