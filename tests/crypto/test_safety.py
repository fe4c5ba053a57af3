"""Safety numbers: the same for both people, and another for anyone else."""

import hashlib
from dataclasses import replace

import pytest

from saltline.crypto.encoding import lp
from saltline.crypto.safety import safety_number, safety_qr, same_number
from saltline.crypto.signatures import Identity
from tests.crypto.people import Device

ALICE = Device("alice").keys.identity
BOB = Device("bob").keys.identity


def hash_by_definition(identity: Identity) -> bytes:
    x = lp(identity.encode())
    h = hashlib.sha512(b"saltline/1 safety\x00" + x).digest()
    for _ in range(5199):
        h = hashlib.sha512(h + x).digest()
    return h


def test_a_number_is_as_written() -> None:
    sides = []
    for identity in (ALICE, BOB):
        h = hash_by_definition(identity)
        groups = [int.from_bytes(h[at : at + 5], "big") % 100_000 for at in range(0, 30, 5)]
        sides.append("".join(f"{group:05d}" for group in groups))
    assert safety_number(ALICE, BOB).replace(" ", "") == "".join(sorted(sides))
    halves = sorted(hash_by_definition(identity)[:32] for identity in (ALICE, BOB))
    assert safety_qr(ALICE, BOB) == b"".join(halves)


def test_both_people_see_the_same_sixty_digits_in_fives() -> None:
    number = safety_number(ALICE, BOB)
    assert number == safety_number(BOB, ALICE)
    assert safety_qr(ALICE, BOB) == safety_qr(BOB, ALICE)
    groups = number.split(" ")
    assert len(groups) == 12 and all(len(group) == 5 and group.isdigit() for group in groups)


@pytest.mark.parametrize(
    "other",
    [
        replace(BOB, username="b0b"),
        replace(BOB, device=2),
        replace(BOB, relay_id=bytes(32)),
        replace(BOB, signing_key=ALICE.signing_key),
        replace(BOB, agreement_key=ALICE.agreement_key),
    ],
    ids=["name", "device", "relay", "signing key", "agreement key"],
)
def test_every_field_of_an_identity_is_in_the_number(other: Identity) -> None:
    number, another = safety_number(ALICE, BOB), safety_number(ALICE, other)
    assert number != another and not same_number(number, another)


def test_comparison_ignores_blanks_and_nothing_else() -> None:
    number = safety_number(ALICE, BOB)
    assert same_number(number, f"  {number.replace(' ', '')}\n")
    assert same_number(number.replace(" ", "\n", 6), number)
    digits = number.replace(" ", "")
    other_digit = "1" if digits[-1] == "0" else "0"
    for wrong in ("", digits[:-1], digits + "0", digits[:-1] + other_digit, digits[:-1] + "x"):
        assert not same_number(number, wrong)
    assert not same_number("", "")
    assert not same_number("٣" * 60, "٣" * 60)
