"""The relay's tables. A change raises SCHEMA and adds the step from the one before.

What a row says about people (docs/protocol.md §1): an envelope's row knows its recipient, when it
came and its bytes; nothing about who sent it.
"""

from typing import Final

from saltline.protocol.names import LOBBY

SCHEMA: Final = 1

# A short message's envelope has 3.6 KiB: two fill a page of 8 KiB, and one would waste 4.
PAGE_BYTES: Final = 8192

# Envelopes and entries are keyed by one integer, owner << NUMBER_BITS | number: one B-tree, in
# which everything of an owner lies together and in order. 2^36 numbers, 2^27 owners.
NUMBER_BITS: Final = 36
NUMBER_MASK: Final = (1 << NUMBER_BITS) - 1

# Of a row of `room`, whose last_number may be less: that is for who loads it (tails.py).
LAST_NUMBER: Final = (
    "coalesce((SELECT max(slot) FROM entry"
    f" WHERE slot BETWEEN room.id << {NUMBER_BITS} AND room.id << {NUMBER_BITS} | {NUMBER_MASK})"
    f" & {NUMBER_MASK}, 0)"
)

_TABLES: Final = """
CREATE TABLE relay (
    relay_id BLOB NOT NULL
) STRICT;

CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    skeleton TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE log (
    sequence INTEGER PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES account,
    number INTEGER NOT NULL,
    entry BLOB NOT NULL,
    leaf BLOB NOT NULL,
    UNIQUE (account, number)
) STRICT;

CREATE TABLE logged_key (
    key BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- A device and its mailbox. Rows are never deleted.
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES account,
    device INTEGER NOT NULL,
    identity BLOB NOT NULL,
    identity_signature BLOB NOT NULL,
    live INTEGER NOT NULL DEFAULT 1,
    generation BLOB NOT NULL DEFAULT x'',
    last_number INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0,
    waiting_bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, device)
) STRICT;

CREATE INDEX mailbox_to_empty ON mailbox (id) WHERE NOT live AND waiting > 0;

CREATE TABLE prekey (
    id INTEGER NOT NULL,
    mailbox INTEGER NOT NULL REFERENCES mailbox,
    kind INTEGER NOT NULL,
    not_after_ms INTEGER NOT NULL,
    encoded BLOB NOT NULL,
    UNIQUE (mailbox, kind, id)
) STRICT;

-- Ids only grow: one at or below `highest` that has no row was handed out or forgotten.
CREATE TABLE prekey_mark (
    mailbox INTEGER NOT NULL REFERENCES mailbox,
    kind INTEGER NOT NULL,
    highest INTEGER NOT NULL,
    PRIMARY KEY (mailbox, kind)
) STRICT, WITHOUT ROWID;

-- An invite (username ''), or a reset code. Used-up codes go.
CREATE TABLE code (
    hash BLOB PRIMARY KEY,
    username TEXT NOT NULL,
    uses INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE envelope (
    slot INTEGER PRIMARY KEY,
    received_ms INTEGER NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
CREATE INDEX envelope_by_arrival ON envelope (received_ms);

-- Last number, hash and bytes are those of some entry; texts above it are not counted yet.
CREATE TABLE room (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last_number INTEGER NOT NULL DEFAULT 0,
    last_hash BLOB NOT NULL DEFAULT (zeroblob(32)),
    members INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX room_by_members ON room (members DESC, name);

CREATE TABLE member (
    room INTEGER NOT NULL REFERENCES room,
    account INTEGER NOT NULL REFERENCES account,
    joined INTEGER NOT NULL,
    after INTEGER NOT NULL,
    -- Its newest entry up to room.last_number: number, author's time, and the device that made it.
    newest INTEGER NOT NULL,
    newest_ms INTEGER NOT NULL,
    newest_mailbox INTEGER NOT NULL,
    PRIMARY KEY (room, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_by_account ON member (account);

-- No second index: message ids are random, and each would dirty a page of its own.
CREATE TABLE entry (
    slot INTEGER PRIMARY KEY,
    received_ms INTEGER NOT NULL,
    account INTEGER NOT NULL REFERENCES account,
    device INTEGER NOT NULL,
    statement BLOB NOT NULL,
    signature BLOB NOT NULL,
    history_hash BLOB NOT NULL
) STRICT;
"""

CREATE: Final = f"""
{_TABLES}
INSERT INTO room (name) VALUES ('{LOBBY}');
PRAGMA user_version = {SCHEMA};
"""
