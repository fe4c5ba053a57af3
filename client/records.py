"""What a command says, as one JSON object a line; the same whichever process found it out.

Text from outside stands here unaltered: JSON's escapes make it harmless, `human` sanitises it.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from saltline.client.model import (
    ContactInfo,
    ConversationSummary,
    Delivery,
    Line,
    LineKind,
    Status,
    Trust,
)
from saltline.protocol.to_client import RoomInfo

VERSION: Final = 1

Record = dict[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS: Final = 253_402_300_799_999  # the end of the year 9999
_TYPES: Final = {
    LineKind.TEXT: "message",
    LineKind.JOIN: "join",
    LineKind.LEAVE: "leave",
    LineKind.NOTICE: "notice",
    LineKind.ALERT: "alert",
    LineKind.UNSUPPORTED: "unsupported",
}
OWN: Final = "own"


def encode_record(record: Mapping[str, Any]) -> str:
    r"""One line of ASCII, other characters as `\u` escapes; no newline at the end."""
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"))


def format_time(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds; a clock beyond the year 9999 stands still there."""
    moment = _EPOCH + timedelta(milliseconds=max(0, min(time_ms, _LATEST_MS)))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_line(line: Line, trust: Trust) -> Record:
    """A line of a timeline; `trust` is the author's."""
    record: Record = {"v": VERSION, "type": _TYPES[line.kind]}
    said_by_someone = line.kind not in (LineKind.NOTICE, LineKind.ALERT)
    if said_by_someone:
        record["id"] = line.id.hex()
    record["conversation"] = line.conversation
    if said_by_someone:
        record["from"] = line.author
        record["trust"] = OWN if line.mine else str(trust.value)
        record["encrypted"] = line.conversation.startswith("@")
        record["sent_at"] = format_time(line.sent_ms)
    record["received_at"] = format_time(line.received_ms)
    record["body"] = line.body
    if line.number:
        record["number"] = line.number
    if line.delivery is not Delivery.NONE:
        record["delivery"] = line.delivery.name.lower()
    if line.reason:
        record["reason"] = line.reason
    return record


def of_contact(contact: ContactInfo) -> Record:
    """A person."""
    record: Record = {
        "v": VERSION,
        "type": "contact",
        "user": contact.username,
        "trust": str(contact.trust.value),
        "fingerprint": contact.fingerprint,
        "safety_number": contact.safety_number,
        "devices": contact.devices,
        "request": contact.request,
    }
    if contact.changed_fingerprint:
        record["changed_fingerprint"] = contact.changed_fingerprint
    return record


def of_room(room: RoomInfo, summary: ConversationSummary | None) -> Record:
    """A public room as the relay lists it, and what this profile has of it."""
    return {
        "v": VERSION,
        "type": "room",
        "room": room.room,
        "members": room.members,
        "online": room.online,
        "joined": summary is not None and summary.joined,
        "unread": 0 if summary is None else summary.unread,
    }


def of_account(status: Status, ca_file: str) -> Record:
    """Who this profile is, where its relay, and what proves that; "": not by such a file."""
    return {
        "v": VERSION,
        "type": "account",
        "user": status.username,
        "relay": status.relay,
        "relay_id": status.relay_id,
        "pin": status.pin,
        "ca_file": ca_file,
        "fingerprint": status.fingerprint,
    }


def of_status(status: Status, ca_file: str) -> Record:
    """The same, and how the link is."""
    return {
        **of_account(status, ca_file),
        "type": "status",
        "connection": str(status.connection.value),
        "detail": status.detail,
        "round_trip_ms": status.round_trip_ms,
        "queued": status.queued,
        "unread": status.unread,
    }


def of_relay(address: str, pin: str, ca_file: str) -> Record:
    """Where the relay is and what proves that it is the one."""
    return {"v": VERSION, "type": "relay", "relay": address, "pin": pin, "ca_file": ca_file}
