"""Envelopes and sessions: whatever a box holds, a refusal leaves the state as it was."""

from dataclasses import dataclass, replace
from functools import cache

from saltline.crypto.encoding import Malformed
from saltline.crypto.envelope import Opened, open_envelope
from saltline.crypto.primitives import BOX_OVERHEAD_BYTES, CannotOpen, RefusedKey, sha256
from saltline.crypto.session import CannotAccept, CannotDecrypt, Session
from tests.crypto.people import (
    NOW_MS,
    Device,
    acquainted,
    plaintext_of,
    refusal,
    sealed_for,
    strangers,
)
from tests.fuzzing.script import Script

_STEPS_MAX = 8


@cache
def introduction() -> tuple[Device, bytes]:
    """Bob, who knows nobody, and Alice's first envelope to him."""
    alice, bob = strangers()
    return bob, alice.says(b"hello")


def envelopes(data: bytes) -> None:
    """The sealed bytes; or what is inside them, all of it or spoilt. First of all which."""
    script = Script(data)
    bob, envelope = introduction()
    way = script.byte() % 4
    true = plaintext_of(bob.opens(envelope))
    plaintext = true
    if way == 0:
        sealed = script.rest()
    elif way == 1:
        sealed = script.spoil(envelope)
    else:
        plaintext = script.spoil(script.spoil(true)) if way == 2 else script.rest()
        sealed = sealed_for(bob, plaintext)
    try:
        opened = open_envelope(bob.keys, sealed)
    except (CannotOpen, Malformed):
        assert sealed != envelope
        return
    assert way != 0, "nobody sealed this"
    assert way != 1 or sealed == envelope, "a changed box opens"
    assert plaintext_of(opened) == plaintext, "two plaintexts are read as one"
    assert len(opened.inner) >= BOX_OVERHEAD_BYTES and opened.digest == sha256(sealed)
    _read_setup(opened)
    try:
        session, content = bob.accepts(opened)
    except (CannotAccept, CannotDecrypt, Malformed, RefusedKey):
        return
    # Only Alice can begin as Alice; all that she signed into it is as she sent it.
    assert (content, session.peer.username) == (b"hello", "alice")
    assert plaintext == true


def _read_setup(opened: Opened) -> None:
    try:
        setup = opened.setup_info
    except (Malformed, RefusedKey):
        return
    assert (setup is None) == (opened.setup == b"")
    assert setup is None or setup.encode() == opened.setup


# --- a session under attack -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Mail:
    """Bob's state, and what Alice has sent him since: two of her chain, three of her next."""

    state: bytes
    opened: tuple[Opened, ...]
    contents: tuple[bytes, ...]


@cache
def _mail() -> tuple[Device, _Mail]:
    alice, bob = acquainted()
    contents = [b"chain %d, text %d" % (chain, text) for chain in (1, 2) for text in range(3)]
    envelopes = [alice.says(content) for content in contents[:3]]
    # Bob answers the first, so that Alice turns the ratchet once more.
    bob.hears(envelopes[0])
    alice.hears(bob.says(b"an answer"))
    envelopes += [alice.says(content) for content in contents[3:]]
    opened = tuple(bob.opens(envelope) for envelope in envelopes[1:])
    return bob, _Mail(bob.now.to_bytes(), opened, tuple(contents[1:]))


def _spoilt(true: Opened, others: tuple[Opened, ...], script: Script) -> Opened | None:
    """One with a part that is spoilt, or another's; None where it has no header any more."""
    other = script.choose(others)
    match script.byte() % 5:
        case 0:
            return true
        case 1:
            part = {"header_bytes": script.spoil(true.header_bytes, [other.header_bytes])}
        case 2:
            part = {"commitment": script.spoil(true.commitment, [other.commitment])[:32]}
        case 3:
            part = {"inner": script.spoil(true.inner, [other.inner])}
        case _:
            part = {"setup": script.rest()}
    changed = {"setup": true.setup, "header_bytes": true.header_bytes}
    changed |= {"commitment": true.commitment, "inner": true.inner, **part}
    bob, _ = _mail()
    try:
        return bob.opens(sealed_for(bob, plaintext_of(replace(true, **changed))))  # type: ignore[arg-type]
    except Malformed:
        return None


def sessions(data: bytes) -> None:
    """Which message comes next and what of it is spoilt, again and again; then all true ones."""
    script = Script(data)
    _, mail = _mail()
    session = Session.from_bytes(mail.state)
    shown: set[int] = set()

    def hear(opened: Opened, number: int) -> bool:
        nonlocal session
        before = session.to_bytes()
        try:
            after, content = session.decrypt(opened, NOW_MS)
        except CannotDecrypt:
            assert session.to_bytes() == before, "a refused message leaves a trace"
            return False
        assert session.to_bytes() == before
        assert content == mail.contents[number], "something else than what was sent"
        assert number not in shown, "shown twice"
        true = mail.opened[number]
        assert opened.header_bytes == true.header_bytes and opened.commitment == true.commitment
        assert opened.inner == true.inner, "a changed message opens"
        session = after
        assert Session.from_bytes(session.to_bytes()) == session
        shown.add(number)
        return True

    for _ in range(_STEPS_MAX):
        if script.is_over:
            break
        number = script.byte() % len(mail.opened)
        spoilt = _spoilt(mail.opened[number], mail.opened, script)
        if spoilt is not None:
            # A spliced message may be wholly another one: then it counts as that.
            same = [at for at, each in enumerate(mail.opened) if _is_same(each, spoilt)]
            hear(spoilt, same[0] if same else number)
    for number, opened in enumerate(mail.opened):
        assert hear(opened, number) or number in shown, "a forgery cost a true message"


def _is_same(left: Opened, right: Opened) -> bool:
    return (left.header_bytes, left.commitment, left.inner) == (
        right.header_bytes,
        right.commitment,
        right.inner,
    )


def states(data: bytes) -> None:
    """A session's state off the disk, spoilt: what is taken is written back as it was."""
    script = Script(data)
    _, mail = _mail()
    state = script.spoil(script.spoil(mail.state))
    try:
        session = Session.from_bytes(state)
    except (Malformed, RefusedKey):
        assert state != mail.state
        return
    assert session.to_bytes() == state, "two byte strings are one state"
    # And whatever it holds, a message is decrypted or refused.
    refusal(session.decrypt, mail.opened[0], NOW_MS)
