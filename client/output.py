"""What a command prints: one JSON object a line, or sentences for people. Data on standard output.

Everything that came from outside passes the sanitiser on its way to a person; in JSON the escapes
make it harmless, and bodies stay as they were sent.
"""

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, TextIO

from saltline.client.model import ExitCode, Refused
from saltline.client.records import OWN, Record, encode_record
from saltline.protocol.text import sanitise

_TRUST_MARKS: Final = {
    "unknown": "?",
    "first seen": "~",
    "verified": "=",
    "changed": "!",
    "blocked": "-",
    OWN: "",
}
_DELIVERY_MARKS: Final = {
    "queued": ".",
    "relayed": ">",
    "delivered": "+",
    "read": "++",
    "failed": "x",
}
_INDENT: Final = "    "  # of a text's further lines, so that none looks like a message of its own


class Output:
    """Standard output. Raises BrokenPipeError when the reader went away, Refused when it fails."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def show(self, record: Record) -> None:
        """Print one record."""
        self.write(self._line(record))

    def write(self, text: str) -> None:
        """Print lines; what the terminal's encoding lacks is escaped."""
        self._put(_encoded(text))

    def begin(self, record: Record) -> bytes:
        """Print one record but for its end, which is returned: `finish` need not wait long for it.

        Any signal may come meanwhile: before its end nobody takes a line for printed.
        """
        data = _encoded(self._line(record))
        if beginning := data[: -select.PIPE_BUF]:
            self._put(beginning)
            self.flush()
        with suppress(OSError, ValueError):  # it has no descriptor, or is none to wait for
            select.select((), (_standard_output(),), ())
        return data[-select.PIPE_BUF :]

    def finish(self, end: bytes) -> None:
        """What `begin` left; the line has left this process when the call returns."""
        self._put(end)
        self.flush()

    def _line(self, record: Record) -> str:
        return encode_record(record) if self._as_json else human(record)

    def _put(self, data: bytes) -> None:
        try:
            _standard_output().buffer.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritable(error) from None

    def flush(self) -> None:
        """Everything printed has left this process when the call returns."""
        stream = _standard_output()
        try:
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            discard_standard_output()
            raise _unwritable(error) from None


def _encoded(text: str) -> bytes:
    return (text + "\n").encode(_standard_output().encoding or "utf-8", "backslashreplace")


def _standard_output() -> TextIO:
    stream: TextIO | None = sys.stdout
    if stream is None:  # it was closed before we began
        raise Refused("Standard output is closed. Nothing was printed.", ExitCode.INTERNAL)
    return stream


def discard_standard_output() -> None:
    """Nobody reads: what is still buffered goes nowhere, and quietly."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def say(sentence: str) -> None:
    """A line for the person, on standard error."""
    with suppress(OSError, ValueError, AttributeError):
        stream = sys.stderr
        encoding = stream.encoding or "ascii"
        text = sanitise(sentence).encode(encoding, "backslashreplace").decode(encoding)
        stream.write(text + "\n")
        stream.flush()


def _unwritable(error: OSError) -> Refused:
    reason = error.strerror or type(error).__name__
    return Refused(
        f"Standard output cannot be written: {reason}. Nothing was marked as printed.",
        ExitCode.INTERNAL,
    )


# --- For people -----------------------------------------------------------------------------------


def human(record: Record) -> str:
    """A record in words. Of a type that is not known here, nothing is lost: its JSON."""
    show = _SHOWN.get(str(record.get("type")))
    return encode_record(record) if show is None else sanitise(show(record))


def _local(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return moment[:16].replace("T", " ")


def _indented(body: str) -> str:
    return sanitise(body).replace("\n", "\n" + _INDENT)


def _message(record: Record) -> str:
    # A sender's clock is shown, but never as later than when its message came.
    moment = _local(min(record["sent_at"], record["received_at"]))
    author = _TRUST_MARKS.get(record["trust"], "?") + record["from"]
    body = _indented(record["body"].rstrip("\n"))
    text = f"{moment} {record['conversation']} {author}: {body}"
    if mark := _DELIVERY_MARKS.get(record.get("delivery", "")):
        text += f"  [{mark}]"
    if reason := record.get("reason"):
        text += f"  ({sanitise(reason, newlines=False)})"
    return text


def _unsupported(record: Record) -> str:
    return _message({**record, "body": "(needs a newer version of saltline)"})


def _moved(what: str) -> Callable[[Record], str]:
    def show(record: Record) -> str:
        author = _TRUST_MARKS.get(record["trust"], "?") + record["from"]
        moment = _local(record["received_at"])
        return f"{moment} {record['conversation']} {author} {what}"

    return show


def _notice(record: Record) -> str:
    loud = "!!" if record["type"] == "alert" else "--"
    moment = _local(record["received_at"])
    return f"{moment} {record['conversation']} {loud} {_indented(record['body'])}"


def _contact(record: Record) -> str:
    mark = _TRUST_MARKS.get(record["trust"], "?")
    fingerprint = record["fingerprint"] or "no key seen yet"
    if changed := record.get("changed_fingerprint"):
        fingerprint = f"{fingerprint} -> {changed}"
    request = "  wants to talk to you" if record["request"] else ""
    return f"{mark} {record['user']}  {fingerprint}  {record['trust']}{request}"


def _room(record: Record) -> str:
    mine = "joined" if record["joined"] else ""
    unread = f"{record['unread']} unread" if record["unread"] else ""
    people = "1 member" if record["members"] == 1 else f"{record['members']} members"
    return f"{record['room']}  {people}, {record['online']} online  {mine} {unread}".rstrip()


def _account(record: Record) -> str:
    proof = record["pin"] or record["ca_file"] or "the system's certificate authorities"
    return (
        f"user         {record['user']}\n"
        f"relay        {record['relay']}\n"
        f"certificate  {proof}\n"
        f"relay id     {record['relay_id']}\n"
        f"fingerprint  {record['fingerprint']}"
    )


def _status(record: Record) -> str:
    speed = record["round_trip_ms"]
    link = record["connection"] + ("" if speed is None else f" {speed} ms")
    detail = f" ({sanitise(record['detail'], newlines=False)})" if record["detail"] else ""
    return (
        f"{record['user']}@{record['relay']}  {link}{detail}\n"
        f"queue {record['queued']}  {record['unread']} unread"
    )


def _relay(record: Record) -> str:
    proof = record["pin"] or record["ca_file"] or "the system's certificate authorities"
    return f"relay        {record['relay']}\ncertificate  {proof}"


_SHOWN: Final[dict[str, Callable[[Record], str]]] = {
    "message": _message,
    "unsupported": _unsupported,
    "join": _moved("joined"),
    "leave": _moved("left"),
    "notice": _notice,
    "alert": _notice,
    "contact": _contact,
    "room": _room,
    "account": _account,
    "status": _status,
    "relay": _relay,
}
