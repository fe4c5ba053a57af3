"""What an admin may set, with its defaults, and what the edge tells the core about its TLS key."""

from dataclasses import dataclass
from enum import StrEnum

from saltline.protocol import limits


class Registration(StrEnum):
    """Who may open an account."""

    OPEN = "open"
    INVITE = "invite"


@dataclass(frozen=True, slots=True)
class Settings:
    """The relay's configurable limits. Sizes are in bytes, times in seconds.

    `saltline.protocol.limits` has the reason for each default that it names.
    """

    registration: Registration = Registration.OPEN

    unauthenticated_per_address: int = limits.UNAUTHENTICATED_PER_ADDRESS
    # Strangers of all addresses together: an attacker with many addresses fills this, not memory.
    unauthenticated_max: int = 2_000
    connections_max: int = limits.CONNECTIONS_MAX
    login_deadline_s: float = limits.LOGIN_DEADLINE_S
    # Clients ping; one that missed all its pings is gone, whatever TCP believes.
    silence_max_s: float = limits.PING_INTERVAL_S * (limits.PINGS_MISSED_MAX + 1)
    registrations_per_minute_and_address: int = limits.REGISTRATIONS_PER_MINUTE_AND_ADDRESS
    requests_per_second: int = limits.REQUESTS_PER_SECOND
    requests_burst: int = limits.REQUESTS_BURST
    claims_per_day_and_target: int = limits.CLAIMS_PER_DAY_AND_TARGET
    claims_per_day: int = 1000

    mailbox_max_envelopes: int = limits.MAILBOX_MAX_ENVELOPES
    mailbox_max_bytes: int = limits.MAILBOX_MAX_BYTES
    envelope_kept_s: int = limits.ENVELOPE_KEPT_S
    delivery_window_envelopes: int = limits.DELIVERY_WINDOW_ENVELOPES
    delivery_window_bytes: int = limits.DELIVERY_WINDOW_BYTES

    rooms_per_user: int = limits.ROOMS_PER_USER
    # Rooms are never deleted; these bound what join and leave, over and over, can create.
    rooms_max: int = 100_000
    rooms_opened_per_day: int = 100
    room_max_bytes: int = limits.ROOM_MAX_BYTES
    room_recent_entries: int = limits.ROOM_RECENT_ENTRIES
    # Above this, telling everyone who comes and goes costs more than it is worth.
    presence_max_members: int = 200

    # What waits for the disk. Four of the largest envelopes, or some 500 short messages, a person.
    waiting_per_connection_bytes: int = 2 * 1024 * 1024
    waiting_in_all_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CertificateStatement:
    """The log key's word for the TLS key in use (docs/protocol.md §6).

    `spki_hash` has 32 bytes, H(SubjectPublicKeyInfo); `signature` 64, over
    `saltline.crypto.signatures.certificate_payload(spki_hash, not_after_ms)`.
    """

    spki_hash: bytes
    not_after_ms: int
    signature: bytes
