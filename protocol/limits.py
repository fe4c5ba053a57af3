"""Every number that the wire knows, with its reason.

Sizes are in bytes, times in seconds unless the name says otherwise. What an admin may change lives
in the relay's configuration; its defaults are here, so that client, relay and documents agree.
"""

from typing import Final

# --- Sizes on the wire -------------------------------------------------------------------------

# The largest text (64 KiB) with its padding.
ENVELOPE_MAX_BYTES: Final = 256 * 1024
# What a frame adds to the largest envelope: field headers, names, a generation.
FRAME_OVERHEAD_BYTES: Final = 1024
# The two together; also 128 prekeys of the largest kind (207 KiB).
FRAME_MAX_BYTES: Final = ENVELOPE_MAX_BYTES + FRAME_OVERHEAD_BYTES
# Strangers send hello, login or register, none of them near this.
FRAME_MAX_BEFORE_LOGIN_BYTES: Final = 16 * 1024
# A page of history or key log entries stays well inside one frame.
PAGE_MAX_BYTES: Final = 192 * 1024
PAGE_MAX_ENTRIES: Final = 200

TEXT_MAX_BYTES: Final = 64 * 1024
# The 65 bytes in front of a room's text: kind, id, time, what was seen.
ROOM_STATEMENT_MAX_BYTES: Final = TEXT_MAX_BYTES + 65
KEYLOG_ENTRY_MAX_BYTES: Final = 1024
PREKEY_MAX_BYTES: Final = 2048  # an ML-KEM-1024 key has 1,568
GENERATION_BYTES: Final = 40  # u64 and an HMAC-SHA-256
TREE_HEAD_MAX_BYTES: Final = 1024  # a signed note with a few cosignatures

MESSAGE_ID_BYTES: Final = 16
NAME_MAX_CHARS: Final = 32
ROOM_MAX_CHARS: Final = 33  # with its '#'

# --- Counts on the wire ------------------------------------------------------------------------

VERSIONS_MAX: Final = 8
FEATURES_MAX: Final = 32
LOOKUP_MAX_NAMES: Final = 64
ACKNOWLEDGE_MAX: Final = 1024
RECEIPT_MAX_IDS: Final = 256
ROOM_LIST_MAX: Final = 1000
MEMBER_LIST_MAX: Final = 5000
PREKEYS_PER_PUBLISH_MAX: Final = 128

# --- Prekeys -----------------------------------------------------------------------------------

ONE_TIME_PREKEYS: Final = 100
ONE_TIME_PREKEYS_REFILL_BELOW: Final = 25
ONE_TIME_KEM_PREKEYS: Final = 50
ONE_TIME_KEM_PREKEYS_REFILL_BELOW: Final = 12
# What a device may have on the relay at once: the above, twice, for uploads that overlap.
ONE_TIME_IDS_MAX: Final = 256
CLAIMS_PER_DAY_AND_TARGET: Final = 10
SIGNED_PREKEY_LIFE_S: Final = 7 * 86_400
# A private half stays for the 7 days in use, 30 in a mailbox, 1 of slack.
PREKEY_KEPT_AFTER_SUCCESSOR_S: Final = 38 * 86_400

# --- Mailboxes and rooms -----------------------------------------------------------------------

ENVELOPE_KEPT_S: Final = 30 * 86_400
MAILBOX_MAX_ENVELOPES: Final = 20_000
MAILBOX_MAX_BYTES: Final = 100 * 1_000_000
# Pushed and not yet acknowledged: enough to keep a link busy, little enough for a slow reader.
DELIVERY_WINDOW_ENVELOPES: Final = 256
DELIVERY_WINDOW_BYTES: Final = 1024 * 1024
ROOM_RECENT_ENTRIES: Final = 50  # what a newcomer sees
ROOMS_PER_USER: Final = 100
# What a room says is kept for ever: a million short texts.
ROOM_MAX_BYTES: Final = 256 * 1024 * 1024

# --- Time --------------------------------------------------------------------------------------

HANDSHAKE_DEADLINE_S: Final = 10.0  # in all, to finish TLS
LOGIN_DEADLINE_S: Final = 20.0  # in all, to log in
PING_INTERVAL_S: Final = 15.0  # with two missed, a dead peer is noticed within a minute
PINGS_MISSED_MAX: Final = 2
REQUEST_TIMEOUT_S: Final = 30.0
RECONNECT_FIRST_S: Final = 1.0
RECONNECT_MAX_S: Final = 60.0
DATED_AHEAD_MAX_S: Final = 86_400  # of the relay's clock: an entry, or what a member says

# --- The relay's defaults for strangers and users ----------------------------------------------

UNAUTHENTICATED_PER_ADDRESS: Final = 64
CONNECTIONS_MAX: Final = 16_000
REGISTRATIONS_PER_MINUTE_AND_ADDRESS: Final = 20
# A burst covers an outbox that leaves after a day offline; the rate is far above a person's.
REQUESTS_PER_SECOND: Final = 2_000
REQUESTS_BURST: Final = 20_000
OUTGOING_QUEUE_MAX_BYTES: Final = 4 * 1024 * 1024
