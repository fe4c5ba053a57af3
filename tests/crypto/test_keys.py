"""Private halves: their bytes, and that they do not show."""

import pytest

from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.encoding import Malformed
from saltline.crypto.keylog import LogKey
from saltline.crypto.keys import IdentityKeys, PrekeyPair
from saltline.crypto.primitives import hkdf
from saltline.crypto.signatures import identity_payload, verify
from tests.crypto.people import LOG, NOW_MS, REFUSALS, Device, flips, seeded

ALICE = Device("alice")


def test_identity_keys_come_from_the_given_randomness() -> None:
    keys = IdentityKeys.generate(LOG.relay_id, "alice", 1, seeded("alice 1"))
    assert keys == ALICE.keys
    assert keys.identity.signing_key != keys.identity.agreement_key
    verify(keys.identity.signing_key, identity_payload(keys.identity), keys.identity_signature)


def test_identity_keys_survive_their_bytes() -> None:
    stored = ALICE.keys.to_bytes()
    assert IdentityKeys.from_bytes(stored) == ALICE.keys
    # X25519 ignores bits in the first and the last byte of a secret (RFC 7748 §5).
    ignored = {len(stored) - 32, len(stored) - 1}
    for at, changed in flips(stored):
        # A changed name or device is a valid layout, but not one that its keys ever signed.
        try:
            other = IdentityKeys.from_bytes(changed)
        except REFUSALS:
            continue
        assert other.identity != ALICE.keys.identity or at in ignored
    for size in range(len(stored)):
        with pytest.raises(Malformed):
            IdentityKeys.from_bytes(stored[:size])
    for wrong in (stored + b"\x00", b"\x02" + stored[1:]):
        with pytest.raises(Malformed, match="left over|unknown version"):
            IdentityKeys.from_bytes(wrong)


def test_keys_of_two_devices_are_not_mixed() -> None:
    mine, theirs = ALICE.keys.to_bytes(), Device("alice", 2).keys.to_bytes()
    for mixed in (mine[:-64] + theirs[-64:], mine[:-32] + theirs[-32:]):
        with pytest.raises(Malformed, match="belong together"):
            IdentityKeys.from_bytes(mixed)


def test_the_generation_key_follows_from_the_seed() -> None:
    seed = ALICE.keys.to_bytes()[-64:-32]
    assert ALICE.keys.generation_key() == hkdf(b"", seed, b"saltline/1 generation\x00", 32)
    assert ALICE.keys.generation_key() != Device("alice", 2).keys.generation_key()


@pytest.mark.parametrize("kind", list(PrekeyKind))
def test_prekeys_survive_their_bytes(kind: PrekeyKind) -> None:
    pair = ALICE.prekeys[kind]
    assert len(pair.secret) == (64 if kind.is_kem else 32)
    pair.public.verify(ALICE.keys.identity, NOW_MS)
    stored = pair.to_bytes()
    assert PrekeyPair.from_bytes(stored) == pair
    for size in range(len(stored)):
        with pytest.raises(Malformed):
            PrekeyPair.from_bytes(stored[:size])
    for wrong in (stored + b"\x00", b"\x02" + stored[1:]):
        with pytest.raises(Malformed, match="left over|unknown version"):
            PrekeyPair.from_bytes(wrong)
    _, changed = list(flips(stored))[-1]
    if kind is not PrekeyKind.SIGNED and kind is not PrekeyKind.ONE_TIME:
        # An ML-KEM seed's last half only matters when a ciphertext is refused.
        changed = stored[:-40] + bytes((stored[-40] ^ 1,)) + stored[-39:]
    with pytest.raises(Malformed, match="belong together"):
        PrekeyPair.from_bytes(changed)


def test_nothing_secret_shows() -> None:
    log_key = LogKey.generate(seeded("log"))
    stored = ALICE.keys.to_bytes()
    secrets = [stored[-64:-32], stored[-32:], log_key.to_bytes()]
    secrets += [pair.secret for pair in ALICE.prekeys.values()]
    shown = repr(ALICE.keys) + repr(list(ALICE.prekeys.values())) + repr(log_key)
    for secret in secrets:
        assert repr(secret)[2:-1] not in shown
        assert repr(secret[:8])[2:-1] not in shown
        assert secret.hex() not in shown
