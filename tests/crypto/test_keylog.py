"""The key log: each rule of an account broken once, and the tree's hashes."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from saltline.crypto import keylog
from saltline.crypto.encoding import Malformed, lp, u8, u32, u64
from saltline.crypto.keylog import (
    LOG_SIGNER,
    Account,
    BadEntry,
    Entry,
    LogKey,
    Op,
    TreeHasher,
    add_device_entry,
    create_entry,
    leaf,
    replay,
    reset_entry,
    revoke_entry,
    tree_root,
)
from saltline.crypto.primitives import sha256
from tests.crypto.people import LOG, REFUSALS, Device, flips, seeded

PHONE, LAPTOP, TABLET = (Device("alice", number) for number in (1, 2, 3))
BOB = Device("bob")


def created(device: Device = PHONE, time_ms: int = 1) -> Entry:
    return create_entry(
        device.keys.identity, device.keys.identity_signature, time_ms, device.keys.sign
    )


def added(account: Account, new: Device, by: Device) -> Entry:
    keys = new.keys
    signer = by.keys.identity.device
    return add_device_entry(
        account, keys.identity, keys.identity_signature, 2, signer, by.keys.sign
    )


def revoked(account: Account, gone: Device, by: Device | None) -> Entry:
    signer = by.keys.identity.device if by else LOG_SIGNER
    sign = by.keys.sign if by else LOG.sign
    return revoke_entry(account, gone.keys.identity, 3, signer, sign)


def reset(account: Account, new: Device) -> Entry:
    return reset_entry(account, new.keys.identity, new.keys.identity_signature, 4, LOG.sign)


def start(entry: Entry) -> Account:
    return Account.start(entry, LOG.public)


def signed(entry: Entry, sign: Callable[[bytes], bytes]) -> Entry:
    return replace(entry, signature=sign(entry.unsigned()))


ACCOUNT = start(created())
TWO_DEVICES = ACCOUNT.apply(added(ACCOUNT, LAPTOP, PHONE), LOG.public)


def test_an_entry_is_laid_out_as_written() -> None:
    entry, identity = created(), PHONE.keys.identity
    unsigned = (
        b"saltline/1 entry\x00"
        + u8(1)
        + lp(b"alice")
        + u32(0)
        + bytes(32)
        + u64(1)
        + lp(identity.encode())
        + PHONE.keys.identity_signature
        + u32(1)
    )
    assert entry.unsigned() == unsigned
    assert entry.encode() == unsigned + PHONE.keys.sign(unsigned)
    assert entry.hash == sha256(entry.encode())
    assert leaf(entry) == sha256(lp(b"alice")) + sha256(entry.encode())
    assert Entry.decode(entry.encode()) == entry
    longest = created(Device("a" * 32))
    assert len(longest.encode()) == keylog.MAX_ENTRY_BYTES


def test_the_life_of_an_account() -> None:
    entries = [created()]
    account = start(entries[0])
    assert account.live == (PHONE.keys.identity,) and account.root == PHONE.keys.identity

    def grow(entry: Entry) -> Account:
        entries.append(entry)
        return account.apply(entry, LOG.public)

    account = grow(added(account, LAPTOP, by=PHONE))
    assert account.live == (PHONE.keys.identity, LAPTOP.keys.identity)
    assert account.root == PHONE.keys.identity
    account = grow(revoked(account, PHONE, by=LAPTOP))
    assert account.live == (LAPTOP.keys.identity,)
    assert account.root == PHONE.keys.identity and account.highest_device == 2
    assert account.live_device(1) is None and account.live_device(2) == LAPTOP.keys.identity
    account = grow(reset(account, TABLET))
    assert account.live == (TABLET.keys.identity,)
    assert account.root == TABLET.keys.identity and account.resets == 1
    account = grow(revoked(account, TABLET, by=None))
    assert account.closed and account.live == () and account.next_number == 5
    assert replay([entry.encode() for entry in entries], LOG.public) == account


def test_a_device_revokes_itself_and_the_last_one_closes_the_name() -> None:
    account = ACCOUNT.apply(revoked(ACCOUNT, PHONE, by=PHONE), LOG.public)
    assert account.closed
    with pytest.raises(BadEntry, match="closed"):
        account.apply(reset(account, LAPTOP), LOG.public)


def test_a_live_device_is_the_whole_id() -> None:
    assert ACCOUNT.is_live(PHONE.keys.identity)
    mixed = replace(PHONE.keys.identity, agreement_key=LAPTOP.keys.identity.agreement_key)
    assert not ACCOUNT.is_live(mixed)


def test_every_byte_of_every_kind_of_entry_is_held() -> None:
    entries = [created(), added(ACCOUNT, LAPTOP, PHONE)]
    entries += [revoked(TWO_DEVICES, PHONE, LAPTOP), reset(TWO_DEVICES, TABLET)]
    accounts = [None, ACCOUNT, TWO_DEVICES, TWO_DEVICES]
    for entry, account in zip(entries, accounts, strict=True):

        def take(data: bytes, account: Account | None = account) -> Account:
            changed = Entry.decode(data)
            return account.apply(changed, LOG.public) if account else start(changed)

        encoded = entry.encode()
        take(encoded)
        for _, changed in flips(encoded):
            with pytest.raises(REFUSALS):
                take(changed)
        for size in range(len(encoded)):
            with pytest.raises(Malformed):
                Entry.decode(encoded[:size])
        with pytest.raises(Malformed, match="left over"):
            Entry.decode(encoded + b"\x00")


FIRST = created()
BROKEN_FIRST = {
    "another op": (replace(FIRST, op=Op.RESET), PHONE.keys.sign, "begins with"),
    "a number": (replace(FIRST, number=1), PHONE.keys.sign, "begins with"),
    "a previous": (replace(FIRST, previous=b"p" * 32), PHONE.keys.sign, "begins with"),
    "another signer": (replace(FIRST, signer=2), PHONE.keys.sign, "own device"),
    "the log as signer": (replace(FIRST, signer=0), LOG.sign, "own device"),
    "another signature": (FIRST, LAPTOP.keys.sign, "does not match its signer"),
    "an unsigned identity": (
        replace(FIRST, identity_signature=LAPTOP.keys.identity_signature),
        PHONE.keys.sign,
        "own key",
    ),
}


@pytest.mark.parametrize("what", BROKEN_FIRST)
def test_a_name_does_not_begin_with(what: str) -> None:
    entry, sign, reason = BROKEN_FIRST[what]
    with pytest.raises(BadEntry, match=reason):
        start(signed(entry, sign))


NEXT = added(ACCOUNT, LAPTOP, PHONE)
BROKEN_NEXT = {
    "a second create": (replace(NEXT, op=Op.CREATE), PHONE.keys.sign, "exists already"),
    "a gap": (replace(NEXT, number=2), PHONE.keys.sign, "does not follow"),
    "a repeat": (replace(NEXT, number=0), PHONE.keys.sign, "does not follow"),
    "another past": (replace(NEXT, previous=b"p" * 32), PHONE.keys.sign, "does not follow"),
    "a device that signs itself in": (replace(NEXT, signer=2), LAPTOP.keys.sign, "not live"),
    "a foreign signature": (NEXT, LAPTOP.keys.sign, "does not match its signer"),
    "a device added by the log": (replace(NEXT, signer=0), LOG.sign, "only a live device"),
    "a reset by a device": (replace(NEXT, op=Op.RESET), PHONE.keys.sign, "only the log key"),
    "a reset signed by a device": (
        replace(NEXT, op=Op.RESET, signer=0),
        PHONE.keys.sign,
        "does not match its signer",
    ),
    "a revoke of a stranger": (replace(NEXT, op=Op.REVOKE), PHONE.keys.sign, "not live"),
    "an unsigned identity": (
        replace(NEXT, identity_signature=PHONE.keys.identity_signature),
        PHONE.keys.sign,
        "own key",
    ),
}


@pytest.mark.parametrize("what", BROKEN_NEXT)
def test_a_name_does_not_go_on_with(what: str) -> None:
    entry, sign, reason = BROKEN_NEXT[what]
    with pytest.raises(BadEntry, match=reason):
        ACCOUNT.apply(signed(entry, sign), LOG.public)
    ACCOUNT.apply(NEXT, LOG.public)


def test_a_device_number_is_never_used_again() -> None:
    account = TWO_DEVICES.apply(revoked(TWO_DEVICES, LAPTOP, PHONE), LOG.public)
    for entry in (added(account, LAPTOP, PHONE), reset(account, LAPTOP)):
        with pytest.raises(BadEntry, match="used twice"):
            account.apply(entry, LOG.public)


def test_a_revoked_device_signs_nothing_more() -> None:
    account = TWO_DEVICES.apply(revoked(TWO_DEVICES, PHONE, LAPTOP), LOG.public)
    with pytest.raises(BadEntry, match="not live"):
        account.apply(added(account, TABLET, by=PHONE), LOG.public)
    with pytest.raises(BadEntry, match="not live"):
        revoked(account, PHONE, LAPTOP)


def test_an_account_takes_entries_of_its_own_name_and_relay() -> None:
    with pytest.raises(BadEntry, match="another name"):
        ACCOUNT.apply(created(BOB), LOG.public)
    elsewhere = LogKey.generate(seeded("another log"))
    with pytest.raises(BadEntry, match="another relay"):
        Account.start(created(), elsewhere.public)
    foreigner = Device("alice", 2, relay_id=elsewhere.relay_id)
    with pytest.raises(BadEntry, match="another relay"):
        ACCOUNT.apply(added(ACCOUNT, foreigner, PHONE), LOG.public)


def test_an_entry_names_one_user() -> None:
    with pytest.raises(Malformed, match="two users"):
        replace(created(), username="bob")
    encoded = created().encode()
    assert encoded[18:27] == lp(b"alice")
    with pytest.raises(Malformed, match="two users"):
        Entry.decode(encoded[:22] + b"alicf" + encoded[27:])


def test_a_name_without_entries_is_no_account() -> None:
    with pytest.raises(BadEntry, match="without entries"):
        replay([], LOG.public)


def test_the_log_key_and_its_relay_id() -> None:
    again = LogKey.from_seed(LOG.to_bytes())
    assert (again.public, again.relay_id) == (LOG.public, sha256(LOG.public))
    with pytest.raises(Malformed):
        LogKey.from_seed(bytes(31))


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = root_by_definition(leaves[:split]), root_by_definition(leaves[split:])
    return sha256(b"\x01" + left + right)


def test_the_tree_is_that_of_rfc_6962() -> None:
    draw = seeded("leaves")
    leaves = [draw(64) for _ in range(70)]
    hasher = TreeHasher()
    for size in range(len(leaves) + 1):
        expected = root_by_definition(leaves[:size])
        assert tree_root(leaves[:size]) == hasher.root() == expected
        assert hasher.size == size
        if size < len(leaves):
            ahead = hasher.copy()
            ahead.append(bytes(64))
            assert hasher.root() == expected
            hasher.append(leaves[size])


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_leaf_has_64_bytes(size: int) -> None:
    with pytest.raises(Malformed):
        tree_root([bytes(size)])
