"""Registration at a relay that lies, or whose answers are lost in errors."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from saltline.protocol import to_client
from tests.client.hostile import Withheld
from tests.client.world import MemoryRelay, Person, refusal
from tests.pushes import Heard

pytestmark = pytest.mark.usefixtures("quick")

ZERO = bytes(32)
MANY = 2**63 - 1


def test_an_invitation_with_a_number_from_no_log(relay: MemoryRelay, tmp_path: Path) -> None:
    ada = Person(relay, tmp_path / "ada", "ada", "0123-4567-89ab-cdef-ghjk-mnpq")

    def lie(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Error) and message.id:
            yield to_client.Invited(message.id, "ada", 2**32 - 1, MANY, ZERO)
        else:
            yield message

    ada.tamper = lie
    ada.online()
    assert "makes no sense" in refusal(ada.answers[ada.registration]).sentence


@pytest.mark.parametrize("code", ["stopping", "storage_failed", "rate_limited", "internal", "???"])
def test_keys_outlive_an_error_that_says_nothing_about_them(
    relay: MemoryRelay, tmp_path: Path, code: str
) -> None:
    """The relay has the account, and its answer is lost in an error: the name is not."""
    ada = Person(relay, tmp_path / "ada", "ada")

    def fail(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Welcome):
            yield to_client.Error(0, code, "Not now.", 0)
        else:
            yield message

    ada.tamper = fail
    ada.online()
    assert refusal(ada.answers[ada.registration])
    ada.tamper = None
    ada.perform(ada.core.begin_registration("ada", "", 99, ada.now))
    ada.online()
    assert ada.answers[99] == "ada" and ada.core.ready


@pytest.mark.parametrize("code", ["unsupported_version", "bad_login", "removed", "stopping"])
def test_who_registers_is_told_at_once_that_the_relay_does_not_even_greet(
    relay: MemoryRelay, tmp_path: Path, code: str
) -> None:
    ada = Person(relay, tmp_path / "ada", "ada")

    def fail(message: Heard) -> Iterable[Heard]:
        if isinstance(message, to_client.Challenge):
            yield to_client.Error(0, code, "Not with this program.", 0)
        else:
            yield message

    ada.tamper = fail
    ada.online()
    assert refusal(ada.answers[ada.registration]).sentence == "Not with this program."
    assert ada.last_disconnect is not None and not ada.last_disconnect.retry


def test_a_late_welcome_does_not_register_another_name(relay: MemoryRelay, tmp_path: Path) -> None:
    ada = Person(relay, tmp_path / "ada", "ada")
    withheld = Withheld(ada, to_client.Welcome)
    ada.tamper = withheld
    ada.online()
    ada.perform(ada.core.begin_registration("beatrice", "", 99, ada.now))
    withheld.release()
    account = ada.vault.account()
    assert account is not None and not account.registered
    ada.tamper = None
    ada.online()
    assert ada.answers[99] == "beatrice" and ada.core.ready
    assert refusal(ada.answers[ada.registration])
