"""The vault's tables. A change raises SCHEMA_VERSION and adds a migration."""

from typing import Final

SCHEMA_VERSION: Final = 1

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- One row: who we are and where our relay is.
CREATE TABLE account (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    username TEXT NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    pin BLOB NOT NULL,              -- SHA-256 of the certificate's key; empty: a CA vouches
    ca_file TEXT NOT NULL,          -- empty: the system's
    log_key BLOB NOT NULL,          -- empty until the first challenge
    identity BLOB NOT NULL,         -- IdentityKeys.to_bytes(); empty until the first challenge
    entry BLOB NOT NULL,            -- our create or reset entry, kept so that a retry repeats it
    invite TEXT NOT NULL,           -- empty once used
    registered INTEGER NOT NULL
);

CREATE TABLE prekeys (
    kind INTEGER NOT NULL, id INTEGER NOT NULL, pair BLOB NOT NULL,
    made_ms INTEGER NOT NULL,
    published INTEGER NOT NULL,     -- the relay has said that it holds the public half
    delete_ms INTEGER NOT NULL,     -- when the private half goes
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;

CREATE TABLE people (
    username TEXT PRIMARY KEY,
    verified INTEGER NOT NULL,      -- the safety number of `root` was compared
    changed INTEGER NOT NULL,       -- a reset waits for the person's decision
    old_root BLOB NOT NULL,         -- the identity that was trusted before the reset
    blocked INTEGER NOT NULL,
    accepted INTEGER NOT NULL       -- we wrote to them, or accepted their request
) WITHOUT ROWID;
CREATE TABLE entries (
    username TEXT NOT NULL, number INTEGER NOT NULL, entry BLOB NOT NULL,
    PRIMARY KEY (username, number)
) WITHOUT ROWID;

CREATE TABLE sessions (
    sid BLOB PRIMARY KEY, username TEXT NOT NULL, device INTEGER NOT NULL, state BLOB NOT NULL
);
CREATE INDEX sessions_by_device ON sessions (username, device);
-- Session ids that were accepted, for as long as their signed prekey's private half lives.
CREATE TABLE accepted (sid BLOB PRIMARY KEY, prekey_id INTEGER NOT NULL) WITHOUT ROWID;
-- Envelopes that were taken in: SHA-256, kept 45 days.
CREATE TABLE seen (digest BLOB PRIMARY KEY, seen_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX seen_by_time ON seen (seen_ms);
-- Envelopes that a known session could not decrypt, kept for a later repair of that session.
CREATE TABLE failed (
    digest BLOB PRIMARY KEY, username TEXT NOT NULL, failed_ms INTEGER NOT NULL,
    envelope BLOB NOT NULL
);
CREATE TABLE peer_counts (
    username TEXT NOT NULL, device INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (username, device)
) WITHOUT ROWID;

CREATE TABLE conversations (
    name TEXT PRIMARY KEY,
    joined INTEGER NOT NULL,        -- rooms
    read_row INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    unread INTEGER NOT NULL,
    mentions INTEGER NOT NULL,
    sent_seq INTEGER NOT NULL,      -- our count in a private conversation
    draft TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE lines (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation TEXT NOT NULL, kind INTEGER NOT NULL, author TEXT NOT NULL, mine INTEGER NOT NULL,
    body TEXT NOT NULL, sent_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
    id BLOB NOT NULL, delivery INTEGER NOT NULL, number INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE INDEX lines_by_conversation ON lines (conversation, row);
-- (sender account, id) is unique: the first wins. Rooms count apart from private messages.
CREATE UNIQUE INDEX lines_by_id ON lines (author, id, conversation) WHERE id <> x'';
CREATE VIRTUAL TABLE lines_text USING fts5 (
    body, content='lines', content_rowid='row', tokenize="unicode61 remove_diacritics 2"
);

-- Receipts that we owe; they leave only to accepted people.
CREATE TABLE receipts_due (
    username TEXT NOT NULL, id BLOB NOT NULL, read INTEGER NOT NULL,
    PRIMARY KEY (username, id, read)
) WITHOUT ROWID;

-- What has not reached the relay, in order. `content` is what will be, or was, encrypted or signed.
CREATE TABLE outbox (
    item INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation TEXT NOT NULL, row INTEGER NOT NULL,   -- row 0: a receipt
    content BLOB NOT NULL,
    encrypted INTEGER NOT NULL
);
CREATE INDEX outbox_by_conversation ON outbox (conversation, item);
CREATE TABLE envelopes (
    envelope_id INTEGER PRIMARY KEY AUTOINCREMENT,
    item INTEGER NOT NULL, username TEXT NOT NULL, device INTEGER NOT NULL,
    identity_hash BLOB NOT NULL,    -- the very ID it was encrypted for
    envelope BLOB NOT NULL
);
CREATE INDEX envelopes_by_item ON envelopes (item);
CREATE INDEX envelopes_by_device ON envelopes (username, device, envelope_id);
-- A signed room entry on its way, so that a retry repeats the same bytes.
CREATE TABLE room_posts (
    item INTEGER PRIMARY KEY, signed BLOB NOT NULL, signature BLOB NOT NULL
);

CREATE TABLE rooms (
    room TEXT PRIMARY KEY,
    last INTEGER NOT NULL, hash BLOB NOT NULL,          -- c of the last entry held
    own_time_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE room_hashes (
    room TEXT NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (room, number)
) WITHOUT ROWID;
CREATE TABLE room_authors (
    room TEXT NOT NULL, author BLOB NOT NULL, time_ms INTEGER NOT NULL, PRIMARY KEY (room, author)
) WITHOUT ROWID;
"""
