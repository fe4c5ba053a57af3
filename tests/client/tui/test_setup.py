"""The first run, through a pipe."""

import pytest
from prompt_toolkit.input import create_pipe_input

from saltline.client.model import ContactInfo, Refused, Trust
from saltline.client.tui.setup import run_setup
from saltline.client.tui.setup_steps import RelaySeen, Step, StepRefused
from tests.client.tui.fake_messenger import OWN_FINGERPRINT, FakeMessenger
from tests.client.tui.pilot import Pilot

PIN = "sha256:" + "5f3a" * 16


class FakeSteps:
    """Says yes to everything, but for what a test wants refused; remembers what it was asked."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.refusals: dict[str, list[Refused]] = {}
        self.vouched = ""
        self.suggested = ""

    def _may(self, step: str) -> None:
        if self.refusals.get(step):
            raise self.refusals[step].pop(0)

    def suggested_relay(self) -> str:
        return self.suggested

    def look_at_relay(self, address: str) -> RelaySeen:
        self.done.append(("look", address))
        self._may("look")
        return RelaySeen(address, PIN, self.vouched)

    def keep_passphrase(self, passphrase: str | None) -> None:
        self.done.append(("passphrase", passphrase))
        self._may("passphrase")

    def make_keys(self) -> None:
        self.done.append(("keys",))
        self._may("keys")

    def register(self, relay: RelaySeen, username: str, invite: str) -> ContactInfo:
        self.done.append(("register", relay.address, username, invite))
        self._may("register")
        return ContactInfo(username, Trust.VERIFIED, OWN_FINGERPRINT, "", 1, False)


def walk(steps: FakeSteps, *answers: str) -> tuple[bool, str]:
    """Answer the questions in order; returns whether it came to its end, and what was printed."""
    pilot = Pilot(FakeMessenger(), 100, 100)
    with create_pipe_input() as pipe:
        pipe.send_text("".join(answers))
        try:
            finished = run_setup(steps, source=pipe, output=pilot.output)
        except KeyboardInterrupt:
            finished = False
    return finished, pilot.words_printed()


def test_from_nothing_to_an_account() -> None:
    steps = FakeSteps()
    finished, printed = walk(
        steps, "relay.example\r", "Ada\r", "correct horse\r", "correct horse\r", "yes\r", "\r"
    )
    assert finished
    assert steps.done == [
        ("look", "relay.example:7443"),
        ("passphrase", "correct horse"),
        ("keys",),
        ("register", "relay.example:7443", "ada", ""),
    ]
    order = [
        "-- Relay --",
        "-- Name --",
        "-- Passphrase --",
        "Your keys are made on this computer",
        "-- Certificate --",
        "5f3a 5f3a 5f3a 5f3a",
        "-- Registration --",
        "-- You are ada --",
        "0a1b 2c3d 4e5f 6071",
        "█",
        "#lobby, which is PUBLIC",
    ]
    places = [printed.index(part) for part in order]
    assert places == sorted(places)
    assert "correct horse" not in printed


def test_nothing_is_registered_before_the_certificate_is_confirmed() -> None:
    steps = FakeSteps()
    finished, printed = walk(
        steps, "relay.example\r", "ada\r", "passphrase\r", "passphrase\r", "maybe\r", "no\r", "\x03"
    )
    assert not finished
    assert "Please type yes or no" in printed
    assert "Nothing is registered there." in printed
    assert printed.rstrip().endswith("Set-up stopped. Nothing was registered.")
    assert not [each for each in steps.done if each[0] == "register"]


def test_a_relay_that_is_vouched_for_needs_no_comparison() -> None:
    steps = FakeSteps()
    steps.vouched = "the pin that was given"
    steps.suggested = "relay.example:7443"
    finished, printed = walk(steps, "\r", "ada\r", "passphrase\r", "passphrase\r", "\r")
    assert finished
    assert "vouched for by the pin that was given" in printed


def test_a_relay_that_cannot_be_reached_is_asked_for_again() -> None:
    steps = FakeSteps()
    steps.refusals["look"] = [Refused("Nothing answers at down.example:7443. Nothing was sent.")]
    finished, printed = walk(
        steps,
        "not a relay!\r",
        "\x15down.example\r",
        "\x15up.example:9000\r",
        "ada\r",
        "passphrase\r",
        "passphrase\r",
        "yes\r",
        "\r",
    )
    assert finished
    assert "! Not a relay's address" in printed
    assert "! Nothing answers at down.example:7443." in printed
    assert steps.done[1] == ("look", "up.example:9000")


def test_names_that_cannot_be_are_refused_before_the_relay_is_asked() -> None:
    steps = FakeSteps()
    _, printed = walk(
        steps,
        "r.example\r",
        "a b\r",
        "admin\r",
        "4da\r",
        "passphrase\r",
        "passphrase\r",
        "yes\r",
        "\r",
    )
    assert "! A user name has 2 to 32 characters" in printed
    assert "! admin is, or looks like, a name that nobody can have." in printed
    assert steps.done[-1] == ("register", "r.example:7443", "4da", "")


@pytest.mark.parametrize(
    ("refusal", "answers", "registered"),
    [
        (
            StepRefused("ada is taken on this relay. Nothing was registered.", Step.NAME),
            ("ada2\r",),
            ("register", "r.example:7443", "ada2", ""),
        ),
        (
            StepRefused("This relay asks for an invite code.", Step.INVITE),
            ("CODE-1\r",),
            ("register", "r.example:7443", "ada", "CODE-1"),
        ),
        (
            StepRefused("The relay is gone.", Step.RELAY),
            ("\x15other.example\r", "yes\r"),
            ("register", "other.example:7443", "ada", ""),
        ),
        (
            StepRefused("Too many registrations at the moment.", Step.AGAIN),
            ("\r",),
            ("register", "r.example:7443", "ada", ""),
        ),
        (
            Refused("Something else."),
            ("\r",),
            ("register", "r.example:7443", "ada", ""),
        ),
    ],
)
def test_a_refused_registration_goes_back_to_what_can_be_mended(
    refusal: Refused, answers: tuple[str, ...], registered: tuple[object, ...]
) -> None:
    steps = FakeSteps()
    steps.refusals["register"] = [refusal]
    finished, printed = walk(
        steps, "r.example\r", "ada\r", "passphrase\r", "passphrase\r", "yes\r", *answers, "\r"
    )
    assert finished
    assert f"! {refusal.sentence}" in printed
    assert steps.done[-1] == registered
    assert [each[0] for each in steps.done].count("passphrase") == 1


def test_two_passphrases_that_differ_are_asked_for_again() -> None:
    steps = FakeSteps()
    finished, printed = walk(
        steps,
        "r.example\r",
        "ada\r",
        "first one\r",
        "the second\r",
        "the third\r",
        "the third\r",
        "yes\r",
        "\r",
    )
    assert finished
    assert "! The two differ. Nothing was saved." in printed
    assert ("passphrase", "the third") in steps.done and (
        "passphrase",
        "first one",
    ) not in steps.done


def test_no_passphrase_has_to_be_said_in_so_many_words() -> None:
    steps = FakeSteps()
    finished, printed = walk(
        steps, "r.example\r", "ada\r", "\r", "\r", "\r", "no passphrase\r", "yes\r", "\r"
    )
    assert finished
    assert ("passphrase", None) in steps.done
    assert "whoever can read this disk" in printed


def test_leaving_while_the_relay_is_asked_does_not_promise_what_it_cannot() -> None:
    steps = FakeSteps()
    steps.refusals["register"] = [StepRefused("No answer.", Step.AGAIN)]
    finished, printed = walk(
        steps, "r.example\r", "ada\r", "passphrase\r", "passphrase\r", "yes\r", "\x03"
    )
    assert not finished
    assert "Start Saltline again to go on." in printed


def test_what_a_relay_says_is_only_printed() -> None:
    steps = FakeSteps()
    steps.vouched = "\x1b]0;pwned\x07\u202e"
    steps.refusals["register"] = [StepRefused("no\x9b2J\x1b[31m", Step.AGAIN)]
    pilot = Pilot(FakeMessenger(), 80, 24)
    with create_pipe_input() as pipe:
        pipe.send_text("r.example\rada\rpassphrase\rpassphrase\r\r\r")
        assert run_setup(steps, source=pipe, output=pilot.output)
    raw = pilot.raw()
    assert "\x9b" not in raw and "\u202e" not in raw and "\x1b]0;" not in raw
    assert "<U+009B>" in raw


# --- Comparing the relay's key --------------------------------------------------------------------


def test_the_relays_key_is_shown_as_the_relay_prints_it() -> None:
    _, printed = walk(
        FakeSteps(), "r.example\r", "ada\r", "passphrase\r", "passphrase\r", "yes\r", "\r"
    )
    assert f" {PIN} " in printed


@pytest.mark.parametrize("answer", [PIN, f"  {PIN} ", PIN.upper(), PIN.removeprefix("sha256:")])
def test_the_pin_itself_is_an_answer(answer: str) -> None:
    steps = FakeSteps()
    finished, _ = walk(
        steps, "r.example\r", "ada\r", "passphrase\r", "passphrase\r", f"{answer}\r", "\r"
    )
    assert finished
    assert steps.done[-1] == ("register", "r.example:7443", "ada", "")


def test_another_pin_registers_nothing() -> None:
    steps = FakeSteps()
    other = "sha256:" + "5f3b" + "5f3a" * 15
    finished, printed = walk(
        steps, "r.example\r", "ada\r", "passphrase\r", "passphrase\r", f"{other}\r", "\x03"
    )
    assert not finished
    assert "! That is not the key that r.example:7443 shows" in printed
    assert "Which relay did you mean?" in printed
    assert not [each for each in steps.done if each[0] == "register"]


@pytest.mark.parametrize("answer", ["sha256:5f3a", "5f3a" * 15, PIN + "0", PIN[:-1] + "é"])
def test_a_part_of_a_pin_is_no_answer(answer: str) -> None:
    steps = FakeSteps()
    finished, printed = walk(
        steps, "r.example\r", "ada\r", "passphrase\r", "passphrase\r", f"{answer}\r", "\x03"
    )
    assert not finished
    assert "Please type yes or no, in full" in printed
    assert not [each for each in steps.done if each[0] == "register"]


# --- What else a newcomer met ---------------------------------------------------------------------


def test_a_short_passphrase_is_asked_about() -> None:
    steps = FakeSteps()
    _, printed = walk(
        steps,
        "r.example\r",
        "ada\r",
        "secret7\r",
        "no\r",
        "secret7\r",
        "yes\r",
        "secret7\r",
        "yes\r",
        "\r",
    )
    assert printed.count("Shorter than 8 characters") == 2
    assert [each for each in steps.done if each[0] == "passphrase"] == [("passphrase", "secret7")]


def test_a_fingerprint_is_not_called_what_verify_compares() -> None:
    _, printed = walk(
        FakeSteps(), "r.example\r", "ada\r", "passphrase\r", "passphrase\r", "yes\r", "\r"
    )
    assert "which friends compare with /verify" not in printed
    assert "60 digits that belong to the two of you" in printed


def test_ctrl_c_reaches_whoever_sets_the_exit_status() -> None:
    pilot = Pilot(FakeMessenger(), 80, 24)
    with create_pipe_input() as pipe:
        pipe.send_text("r.example\r\x03")
        with pytest.raises(KeyboardInterrupt):
            run_setup(FakeSteps(), source=pipe, output=pilot.output)
    assert "Set-up stopped. Nothing was registered." in pilot.words_printed()
