"""The headless commands: what each asks of the profile, and what it prints."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from saltline.client import requests
from saltline.client.model import Delivery, ExitCode, Refused
from saltline.client.output import Output, say
from saltline.client.profile import Profile, default_folder, harden_process
from saltline.client.records import Record
from saltline.client.requests import AnyRequest, Reply
from saltline.client.sharing import SharedProfile, undisturbed
from saltline.client.terminal import ask_key, confirm
from saltline.protocol.limits import MESSAGE_ID_BYTES, TEXT_MAX_BYTES
from saltline.protocol.names import BadName, parse_conversation

_TAKE_MAX: Final = 200
# While nothing comes, `recv` asks again this often, and looks how the link is.
_TAKE_S: Final = 10.0
# The first look comes sooner: a relay that is away is not to be mistaken for silence.
_FIRST_TAKE_S: Final = 1.0
# For a connection that is just being made.
_LOOK_S: Final = 0.5
# A newcomer's room has many of them, and no message among them.
_COMINGS_AND_GOINGS: Final = ("join", "leave")
_MESSAGES: Final = ("message", "unsupported")
_STATES: Final = {
    "queued": "The message is queued on this disk: it leaves by itself with the next command or"
    " screen. Do not send it again.",
    "relayed": "The message is on the relay and is delivered from there; there is nothing to do.",
}
# Receipts for what was just printed get this long to leave.
_RECEIPTS_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before the command."""

    profile: Path | None = None
    passphrase_file: Path | None = None

    @property
    def folder(self) -> Path:
        """The profile's folder."""
        return self.profile or default_folder()


class Session:
    """One command's way to the profile, its output and its time."""

    def __init__(self, options: Options, *, as_json: bool, timeout_s: float) -> None:
        harden_process()
        self.output = Output(as_json=as_json)
        self.as_json = as_json
        self.timeout_s = timeout_s
        self.introduced: set[str] = set()  # who wrote, and was looked at
        self._deadline = 0.0
        profile = Profile(options.folder)
        self._shared = SharedProfile(
            profile, lambda each: ask_key(each, options.passphrase_file), timeout_s
        )

    def __enter__(self) -> "Session":
        self._shared.__enter__()
        self._deadline = time.monotonic() + self.timeout_s  # typing a passphrase takes none of it
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.output.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Give the profile back. Again: nothing."""
        self._shared.close()

    @property
    def left_s(self) -> float:
        """What is left of the command's time."""
        return max(0.0, self._deadline - time.monotonic())

    def perform(self, request: AnyRequest) -> list[Reply]:
        """All replies, wherever the profile is open. Raises Refused."""
        return self._shared.perform(request)

    def stream(self, request: AnyRequest) -> Iterator[Reply]:
        """The same, with what came before a refusal."""
        return self._shared.stream(request)

    def look_again(self, request: AnyRequest) -> list[Reply]:
        """Replies after a signal broke off another request; none where there are none to be had."""
        return self._shared.look_again(request)

    def show(self, request: AnyRequest) -> list[Reply]:
        """The same, printed; also what came before a refusal."""
        replies: list[Reply] = []
        try:
            for reply in self.stream(request):
                replies.append(reply)
                self.output.show(reply.record)
        finally:
            self.output.flush()
        return replies


# --- Looking --------------------------------------------------------------------------------------


def whoami(session: Session) -> None:
    """Who is this profile?"""
    session.show(requests.Account())


def status(session: Session) -> None:
    """The profile and its link."""
    session.show(requests.GetStatus(session.timeout_s))


def contacts(session: Session) -> None:
    """Everybody who was met in private."""
    if not session.show(requests.ListContacts()):
        say("You have talked to nobody yet. To begin: saltline send USER")


def rooms(session: Session) -> None:
    """The relay's public rooms."""
    session.show(requests.ListRooms(session.timeout_s))


def history(session: Session, conversation: str, limit: int, search: str | None) -> None:
    """The last lines of a conversation, oldest first."""
    session.show(requests.History(conversation, limit, search))


def relay(session: Session, address: str | None, pin: str | None, ca_file: str | None) -> None:
    """Show or change where the relay is."""
    if ca_file:
        ca_file = os.path.abspath(ca_file)  # the process that owns the profile stands elsewhere
    session.show(requests.Relay(address, pin, ca_file))


# --- Sending --------------------------------------------------------------------------------------


def read_text(given: str | None) -> str:
    """The text to send, unaltered: what `-m` gave, or standard input. Raises Refused."""
    if given is not None:
        data = os.fsencode(given)
    else:
        if sys.stdin is None:
            raise Refused("There is no text: use -m TEXT, or write it to standard input.")
        if sys.stdin.isatty():
            say("Type the message; Ctrl-D on an empty line ends it.")
        data = sys.stdin.buffer.read(TEXT_MAX_BYTES + 1)
    if len(data) > TEXT_MAX_BYTES:
        raise Refused(
            f"The text has more than {TEXT_MAX_BYTES} bytes, which is what one message holds."
            " Nothing was sent; send it in parts."
        )
    if not data:
        raise Refused("The text is empty. Nothing was sent.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            f"The text is not valid UTF-8 (byte {error.start}). Nothing was sent."
        ) from None


def person(name: str) -> str:
    """USER or @USER as the name of a conversation. Raises Refused."""
    if name.startswith("#"):
        raise Refused(f"{name} is a room, and public: saltline post '{name}'. Nothing was sent.")
    return _conversation(name)


def room(name: str) -> str:
    """#ROOM as the name of a conversation. Raises Refused."""
    if not name.startswith("#"):
        raise Refused(f"A room's name begins with #: saltline post '#{name}'. Nothing was sent.")
    return _conversation(name)


def _conversation(name: str) -> str:
    try:
        return parse_conversation(name).name
    except BadName as error:
        raise Refused(f"{error} Nothing was sent.") from None


def send(session: Session, conversation: str, text: str, wait: Delivery) -> None:
    """Queue a text, and wait until it has come as far as `wait`."""
    message_id = os.urandom(MESSAGE_ID_BYTES)
    (queued,) = session.perform(requests.Send(conversation, text, message_id))
    shown, is_told = queued.record, False
    try:
        if wait > Delivery.QUEUED:
            for reply in session.stream(requests.Await(queued.row, int(wait), session.timeout_s)):
                shown, is_told = reply.record, True
    except Refused as refused:
        if is_told:
            raise
        # The profile's owner went away, and we cannot take over: without its passphrase, perhaps.
        say(_STATES["queued"])
        raise Refused(refused.sentence, ExitCode.TIMED_OUT) from None
    except Exception:
        raise
    except BaseException:  # a signal; meanwhile it may have come further
        for reply in session.look_again(requests.Await(queued.row, int(Delivery.QUEUED), 0.0)):
            shown = reply.record
        if state := _STATES.get(shown.get("delivery", "")):
            say(f"Interrupted. {state}")
        raise
    finally:
        _show_sent(session, shown)


def _show_sent(session: Session, record: Record) -> None:
    """Print it. Where that fails, the text has left all the same, and nobody is to repeat it."""
    try:
        session.output.show(record)
        session.output.flush()
    except (OSError, Refused):
        if state := _STATES.get(record.get("delivery", "")):
            say(state)
        raise


# --- Receiving ------------------------------------------------------------------------------------


def receive_once(session: Session) -> None:
    """Exchange everything, then print what was not printed yet; also when the relay is away."""
    refusal: Refused | None = None
    try:
        session.perform(requests.CatchUp(session.timeout_s))
    except Refused as error:
        refusal = error
    while _print_some(session, _TAKE_MAX, 0.0):
        pass
    if refusal is not None:
        raise refusal


def receive_count(session: Session, count: int) -> None:
    """Print until `count` messages have come. Raises Refused (TIMED_OUT)."""
    left = count
    while left:
        if session.left_s <= 0:
            reason = _why_away(session)
            raise Refused(
                f"{count - left} of {count} messages came within {session.timeout_s:g} s."
                + (f" {reason}" if reason else ""),
                ExitCode.TIMED_OUT,
            )
        lines = _print_some(session, min(left, _TAKE_MAX), min(_TAKE_S, session.left_s))
        left -= sum(1 for each in lines if each.record["type"] in _MESSAGES)
    try:
        session.perform(requests.CatchUp(_RECEIPTS_S))
    except Refused:
        pass  # they leave with the next command


def receive_forever(session: Session, *, endless: bool) -> None:
    """Print what comes, until the time is over or a signal; says once that the relay is away."""
    wait_s, away = _FIRST_TAKE_S, False
    while endless or session.left_s > 0:
        if not _print_some(session, _TAKE_MAX, wait_s if endless else min(wait_s, session.left_s)):
            reason = _why_away(session)
            if reason and not away:
                say(f"{reason} It is tried again until it answers.")
            away = bool(reason)
            wait_s = _TAKE_S


def _print_some(session: Session, limit: int, timeout_s: float) -> list[Reply]:
    """Print the next lines; only when they have left this process are they marked as printed.

    Who ends us because of what was printed is not shown it again.
    """
    lines = session.perform(requests.Take(limit, timeout_s))
    if not lines:
        return lines
    printed = 0  # the last row that has left, and has no mark yet
    try:
        for reply in lines:
            if session.as_json or reply.record["type"] not in _COMINGS_AND_GOINGS:
                end = session.output.begin(reply.record)
                with undisturbed():
                    session.output.finish(end)
                    printed = reply.row
        with undisturbed():
            session.perform(requests.Printed(lines[-1].row))
            printed = 0
    except Exception:  # it could not be printed
        raise
    except BaseException:  # a signal
        if printed:
            with undisturbed():
                session.perform(requests.Printed(printed))
        raise
    _say_strangers(session, lines)
    return lines


def _say_strangers(session: Session, lines: list[Reply]) -> None:
    """Tell once of each stranger what accepts them."""
    records = [each.record for each in lines if each.record["type"] in _MESSAGES]
    authors = {each["from"] for each in records if each["encrypted"]} - session.introduced
    if not authors:
        return
    session.introduced |= authors
    for contact in session.perform(requests.ListContacts()):
        user = contact.record["user"]
        if user in authors and contact.record["request"]:
            say(
                f"{user} is a stranger, and gets no receipt until you answer (saltline send {user})"
                f" or accept (/accept {user} on the screen)."
            )


def _why_away(session: Session) -> str:
    """Why the relay is away, as a sentence; "" if it is not."""
    try:
        session.perform(requests.GetStatus(_LOOK_S))
    except Refused as refusal:
        return refusal.sentence
    return ""


# --- Trust ----------------------------------------------------------------------------------------


def verify(session: Session, user: str, number: str | None) -> None:
    """Mark verified by the number; without one, print it and ask on a terminal."""
    (found,) = session.perform(requests.GetContact(user, session.timeout_s))
    if number is None:
        shown = found.record["safety_number"]
        if session.as_json:
            session.output.show(found.record)
        else:
            session.output.write(_number_block(found.record["user"], shown))
        session.output.flush()
        if session.as_json or not confirm(f"Does {found.record['user']} have the same number?"):
            return
        number = shown
    session.show(requests.Verify(user, number))


def trust(session: Session, user: str, number: str) -> None:
    """Take a changed key as first seen."""
    session.show(requests.TrustKey(user, number))


def _number_block(user: str, number: str) -> str:
    groups = number.split()
    rows = [" ".join(groups[start : start + 4]) for start in range(0, len(groups), 4)]
    return "\n".join(
        [f"The safety number of you and {user}:", *(f"    {row}" for row in rows)]
        + [f"Compare all 60 digits in person or by voice, then: saltline verify {user} NUMBER"]
    )
