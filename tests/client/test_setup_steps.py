"""The first run's steps on a real profile and a real relay."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from saltline.client.model import Refused, Trust
from saltline.client.profile import Profile
from saltline.client.setup_steps import ProfileSetup, resume
from saltline.client.tui.setup_steps import RelaySeen, SetupSteps, Step, StepRefused
from saltline.server.settings import Registration, Settings
from tests.client.programs import SETTINGS, House
from tests.client.tls_peer import closed_port


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House.running(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[Profile]:
    profile = Profile(tmp_path / "new", create=True)
    profile.acquire()
    yield profile
    profile.release()


@pytest.fixture
def steps(profile: Profile) -> Iterator[ProfileSetup]:
    steps = ProfileSetup(profile)
    yield steps
    steps.close()


def seen(house: House) -> RelaySeen:
    return RelaySeen(str(house.address), house.pin, "")


def test_the_steps_are_what_the_screens_ask_for(steps: ProfileSetup) -> None:
    asked_for: SetupSteps = steps

    assert asked_for.suggested_relay() == ""


def test_a_relay_shows_its_key_before_anything_is_said(house: House, steps: ProfileSetup) -> None:
    assert steps.look_at_relay(str(house.address)) == seen(house)


def test_all_steps_lead_to_a_client_with_an_account(
    house: House, steps: ProfileSetup, profile: Profile
) -> None:
    steps.keep_passphrase(None)
    steps.make_keys()
    own = steps.register(seen(house), "ann1", "")
    with steps.take() as client:
        assert client.status().username == "ann1"

    assert (own.username, own.trust) == ("ann1", Trust.VERIFIED)
    assert own.fingerprint
    steps.close()
    assert profile.is_set_up


def test_a_name_that_is_taken_is_asked_for_again(house: House, steps: ProfileSetup) -> None:
    house.user("ben2")
    steps.keep_passphrase(None)

    with pytest.raises(StepRefused) as refused:
        steps.register(seen(house), "ben2", "")
    assert refused.value.step is Step.NAME
    assert steps.register(seen(house), "ann2", "").username == "ann2"


def test_a_relay_that_is_away_or_another_is_asked_for_again(
    house: House, steps: ProfileSetup
) -> None:
    steps.keep_passphrase(None)
    with closed_port() as port:
        away = RelaySeen(f"127.0.0.1:{port}", house.pin, "")
        other = RelaySeen(str(house.address), "sha256:" + "ab" * 32, "")
        for relay in (away, other):
            with pytest.raises(StepRefused) as refused:
                steps.register(relay, "ann3", "")
            assert refused.value.step is Step.RELAY
        assert steps.suggested_relay() == str(house.address)

    assert steps.register(seen(house), "ann3", "").username == "ann3"


def test_an_invite_is_asked_for_where_one_is_needed(tmp_path: Path, steps: ProfileSetup) -> None:
    settings = Settings(registration=Registration.INVITE)
    closed = House(tmp_path / "closed", settings=settings)
    closed.folder.mkdir()
    closed.open()
    try:
        steps.keep_passphrase(None)
        for invite in ("", "no-such-code"):
            with pytest.raises(StepRefused) as refused:
                steps.register(seen(closed), "ann4", invite)
            assert refused.value.step is Step.INVITE
    finally:
        closed.close()


def test_leaving_before_there_are_keys_leaves_nothing(
    house: House, steps: ProfileSetup, profile: Profile
) -> None:
    steps.keep_passphrase(None)
    steps.keep_passphrase(None)  # thought again
    assert profile.is_set_up
    steps.close()

    assert [path.name for path in profile.folder.iterdir()] == ["lock"]
    with pytest.raises(Refused, match="closed"):
        steps.take()


def test_what_was_broken_off_with_keys_is_finished(house: House, profile: Profile) -> None:
    steps = ProfileSetup(profile)
    steps.keep_passphrase(None)
    house.close()
    with pytest.raises(StepRefused):
        steps.register(seen(house), "ann5", "")
    house.open()
    with steps.take() as client:
        resume(client)
        assert client.status().username == "ann5"
    assert SETTINGS is house.settings
