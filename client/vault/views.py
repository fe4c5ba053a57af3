"""What the interfaces read; safe on a second, read-only connection."""

from collections.abc import Sequence
from typing import Any

from saltline.client.model import (
    ContactInfo,
    ConversationSummary,
    Line,
    Trust,
)
from saltline.client.vault.database import Vault
from saltline.client.vault.people import PeopleStore, Person
from saltline.client.vault.timeline import LINE_COLUMNS, Timeline, to_line
from saltline.crypto.encoding import Malformed
from saltline.crypto.keylog import Account, replay
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.primitives import CryptoError
from saltline.crypto.safety import safety_number

MATCHES_MAX = 1000


def trust_of(person: Person | None, known: bool) -> Trust:
    """The one word for what was decided about a person; `known`: there is a key."""
    if person is not None and person.blocked:
        return Trust.BLOCKED
    if person is not None and person.changed:
        return Trust.CHANGED
    if not known:
        return Trust.UNKNOWN
    verified = person is not None and person.verified
    return Trust.VERIFIED if verified else Trust.FIRST_SEEN


def conversations(vault: Vault) -> list[ConversationSummary]:
    """Private conversations by last activity, then rooms by name."""
    rows = vault.rows(
        "SELECT c.name, c.unread, c.mentions, c.last_row, c.joined, c.read_row,"
        " p.username IS NOT NULL, p.verified, p.changed, p.blocked, p.accepted,"
        " EXISTS (SELECT 1 FROM entries e WHERE e.username = p.username)"
        " FROM conversations c LEFT JOIN people p ON c.name = '@' || p.username"
        " ORDER BY c.name LIKE '#%', CASE WHEN c.name LIKE '#%' THEN 0 ELSE -c.last_row END, c.name"
    )
    return [_summary(row) for row in rows]


def _summary(row: tuple[Any, ...]) -> ConversationSummary:
    name, unread, mentions, last, joined, read, met, verified, changed, blocked, accepted, key = row
    person = None
    if met:
        person = Person(
            name[1:], bool(verified), bool(changed), None, bool(blocked), bool(accepted)
        )
    return ConversationSummary(
        name=name,
        trust=trust_of(person, bool(key)),
        unread=unread,
        mentions=mentions,
        last_row=last,
        request=person is not None and not person.accepted and not person.blocked,
        joined=bool(joined),
        read_row=read,
    )


def own_keys(vault: Vault) -> IdentityKeys | None:
    """This device's identity keys, once they are made."""
    account = vault.account()
    return IdentityKeys.from_bytes(account.identity) if account and account.identity else None


def known_account(vault: Vault, username: str) -> Account | None:
    """What the accepted entries of a name give."""
    account = vault.account()
    entries = PeopleStore(vault).entries(username)
    if account is None or not entries:
        return None
    try:
        return replay(entries, account.log_key)
    except (CryptoError, Malformed):
        return None


def contact(vault: Vault, username: str) -> ContactInfo:
    """A person as this profile knows them; Trust.UNKNOWN for a stranger."""
    person = PeopleStore(vault).person(username)
    account = known_account(vault, username)
    keys = own_keys(vault)
    trust = trust_of(person, account is not None)
    if account is None or keys is None:
        return ContactInfo(username, trust, "", "", 0, False)
    old = person.old_root if person is not None and person.changed else None
    return ContactInfo(
        username=username,
        trust=trust,
        fingerprint=(old or account.root).fingerprint,
        safety_number=safety_number(keys.identity, account.root),
        devices=len(account.live),
        request=_is_request(vault, person),
        changed_fingerprint=account.root.fingerprint if old else "",
    )


def _is_request(vault: Vault, person: Person | None) -> bool:
    if person is None or person.accepted or person.blocked:
        return False
    return bool(vault.row("SELECT 1 FROM conversations WHERE name = ?", "@" + person.username))


def contacts(vault: Vault) -> list[ContactInfo]:
    """Everybody who was met in private, by name; not who turned out not to exist."""
    names = vault.rows(
        "SELECT p.username FROM people p JOIN conversations c ON c.name = '@' || p.username"
        " ORDER BY p.username"
    )
    met = (contact(vault, row[0]) for row in names)
    return [info for info in met if info.trust is not Trust.UNKNOWN]


def own_identity(vault: Vault) -> ContactInfo:
    """Ourselves, as others see us."""
    keys = own_keys(vault)
    if keys is None:
        return ContactInfo("", Trust.UNKNOWN, "", "", 0, False)
    identity = keys.identity
    return ContactInfo(identity.username, Trust.VERIFIED, identity.fingerprint, "", 1, False)


def line(vault: Vault, row: int) -> Line | None:
    """One line."""
    return Timeline(vault).line(row)


def page(
    vault: Vault,
    conversation: str,
    *,
    before: int | None = None,
    after: int | None = None,
    limit: int,
) -> Sequence[Line]:
    """Lines in order: the last `limit` with row < before, or the first with row > after."""
    if after is not None:
        rows = vault.rows(
            f"SELECT {LINE_COLUMNS} FROM lines WHERE conversation = ? AND row > ?"
            " ORDER BY row LIMIT ?",
            conversation,
            after,
            limit,
        )
        return [to_line(row) for row in rows]
    rows = vault.rows(
        f"SELECT {LINE_COLUMNS} FROM lines WHERE conversation = ? AND row < ?"
        " ORDER BY row DESC LIMIT ?",
        conversation,
        2**62 if before is None else before,
        limit,
    )
    return [to_line(row) for row in reversed(rows)]


def count(vault: Vault, conversation: str, *, after: int = 0) -> int:
    """How many lines of a conversation have a row above `after`."""
    return int(
        vault.value(
            "SELECT count(*) FROM lines WHERE conversation = ? AND row > ?", conversation, after
        )
    )


def search(vault: Vault, query: str, conversation: str | None, limit: int) -> list[Line]:
    """Newest first; every word of `query` must occur, the last one may be unfinished."""
    words = [word for word in "".join(c if c.isalnum() else " " for c in query).split() if word]
    if not words:
        return []
    match = " ".join(f'"{word}"' for word in words) + "*"
    columns = ", ".join(f"l.{name.strip()}" for name in LINE_COLUMNS.split(","))
    rows = vault.rows(
        f"SELECT {columns} FROM lines_text t JOIN lines l ON l.row = t.rowid"
        " WHERE lines_text MATCH ? AND (? IS NULL OR l.conversation = ?)"
        " ORDER BY l.row DESC LIMIT ?",
        match,
        conversation,
        conversation,
        min(limit, MATCHES_MAX),
    )
    return [to_line(row) for row in rows]


def status_counts(vault: Vault) -> tuple[int, int]:
    """(messages that the relay does not have, unread messages)."""
    queued = vault.value("SELECT count(*) FROM outbox WHERE row > 0")
    unread = vault.value("SELECT coalesce(sum(unread), 0) FROM conversations")
    return int(queued), int(unread)
