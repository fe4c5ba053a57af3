"""What can go wrong between a client and a relay, and whose fault it is."""

from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """Who has to change something before a retry can succeed."""

    CLIENT = "client"
    RELAY = "relay"
    NOBODY = "nobody"  # a limit or a state of the world: waiting or asking someone helps


class ErrorCode(StrEnum):
    """The codes of an `Error` message. The value is what stands on the wire."""

    BAD_FRAME = "bad_frame"
    FRAME_TOO_LARGE = "frame_too_large"
    BAD_MESSAGE = "bad_message"
    UNSUPPORTED_VERSION = "unsupported_version"
    TOO_EARLY = "too_early"
    TOO_SLOW = "too_slow"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    BAD_LOGIN = "bad_login"
    REPLACED = "replaced"
    REMOVED = "removed"
    BAD_NAME = "bad_name"
    NAME_TAKEN = "name_taken"
    INVITE_NEEDED = "invite_needed"
    BAD_INVITE = "bad_invite"
    BAD_ENTRY = "bad_entry"
    BAD_PREKEY = "bad_prekey"
    UNKNOWN_USER = "unknown_user"
    UNKNOWN_DEVICE = "unknown_device"
    NO_PREKEYS = "no_prekeys"
    MAILBOX_FULL = "mailbox_full"
    ENVELOPE_TOO_LARGE = "envelope_too_large"
    UNKNOWN_ROOM = "unknown_room"
    NOT_A_MEMBER = "not_a_member"
    TOO_MANY_ROOMS = "too_many_rooms"
    ROOM_FULL = "room_full"
    BAD_STATEMENT = "bad_statement"
    STORAGE_FAILED = "storage_failed"
    STOPPING = "stopping"
    INTERNAL = "internal"


FAULT: Final = {
    ErrorCode.BAD_FRAME: Fault.CLIENT,
    ErrorCode.FRAME_TOO_LARGE: Fault.CLIENT,
    ErrorCode.BAD_MESSAGE: Fault.CLIENT,
    ErrorCode.UNSUPPORTED_VERSION: Fault.NOBODY,
    ErrorCode.TOO_EARLY: Fault.CLIENT,
    ErrorCode.TOO_SLOW: Fault.CLIENT,
    ErrorCode.RATE_LIMITED: Fault.NOBODY,
    ErrorCode.TOO_MANY_CONNECTIONS: Fault.NOBODY,
    ErrorCode.BAD_LOGIN: Fault.CLIENT,
    ErrorCode.REPLACED: Fault.NOBODY,
    ErrorCode.REMOVED: Fault.NOBODY,
    ErrorCode.BAD_NAME: Fault.CLIENT,
    ErrorCode.NAME_TAKEN: Fault.NOBODY,
    ErrorCode.INVITE_NEEDED: Fault.NOBODY,
    ErrorCode.BAD_INVITE: Fault.NOBODY,
    ErrorCode.BAD_ENTRY: Fault.CLIENT,
    ErrorCode.BAD_PREKEY: Fault.CLIENT,
    ErrorCode.UNKNOWN_USER: Fault.NOBODY,
    ErrorCode.UNKNOWN_DEVICE: Fault.NOBODY,
    ErrorCode.NO_PREKEYS: Fault.NOBODY,
    ErrorCode.MAILBOX_FULL: Fault.NOBODY,
    ErrorCode.ENVELOPE_TOO_LARGE: Fault.CLIENT,
    ErrorCode.UNKNOWN_ROOM: Fault.NOBODY,
    ErrorCode.NOT_A_MEMBER: Fault.CLIENT,
    ErrorCode.TOO_MANY_ROOMS: Fault.NOBODY,
    ErrorCode.ROOM_FULL: Fault.NOBODY,
    ErrorCode.BAD_STATEMENT: Fault.CLIENT,
    ErrorCode.STORAGE_FAILED: Fault.RELAY,
    ErrorCode.STOPPING: Fault.NOBODY,
    ErrorCode.INTERNAL: Fault.RELAY,
}


class ProtocolError(Exception):
    """The other side sent, or asked for, something that is refused.

    `code` says what; `detail` is a sentence for a person, made from our own words only, never from
    the bytes that were refused; `retry_after_ms` is 0 where waiting does not help.
    """

    def __init__(self, code: ErrorCode, detail: str, retry_after_ms: int = 0) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms

    @property
    def fault(self) -> Fault:
        """Whose fault it is."""
        return FAULT[self.code]
