"""The first run: relay and name, passphrase, keys, certificate, registration, fingerprint.

Linear prompts, not screens: they work everywhere, can be read aloud, and stay in the scrollback.
"""

import hmac
import re
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, get_app_session
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output

from saltline.client.model import ContactInfo, Refused
from saltline.client.tui.panes import grouped
from saltline.client.tui.qr import identity_text, qr_rows
from saltline.client.tui.setup_steps import RelaySeen, SetupSteps, Step, StepRefused
from saltline.client.tui.wrap import shown
from saltline.protocol.names import BadName, check_user, is_reserved, parse_relay_address

COLUMNS_MAX: Final = 76
PASSPHRASE_SHORT: Final = 8  # characters; shorter ones are asked about
REFUSAL: Final = "no passphrase"
TRIES: Final = 100  # an input that answers the same for ever ends, too


_PIN: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class _Stopped(Exception):
    """The person left."""


def run_setup(
    steps: SetupSteps, *, source: Input | None = None, output: Output | None = None
) -> bool:
    """Walk through the first run. True: registered, the screen may open. False: the person left.

    Ctrl-C goes on as KeyboardInterrupt after a sentence: the exit status says so.
    """
    with create_app_session(source, output):
        dialogue = _Dialogue(steps)
        try:
            dialogue.run()
        except KeyboardInterrupt:
            dialogue.tell(dialogue.outcome())
            raise
        except (_Stopped, EOFError):
            dialogue.tell(dialogue.outcome())
            return False
    return True


class _Dialogue:
    """The questions, in order; a refusal goes back to the one that it concerns."""

    def __init__(self, steps: SetupSteps) -> None:
        self._steps = steps
        self._output = get_app_session().output
        self._relay: RelaySeen | None = None
        self._name = ""
        self._invite = ""
        self._asked_relay = False  # a registration may be on the relay's disk

    def run(self) -> None:
        """Ask until the account exists. Raises _Stopped, KeyboardInterrupt, EOFError."""
        self.tell(
            "Welcome to Saltline. You need the address of a relay, from whoever runs it. "
            "Ctrl-C stops at any time; nothing is registered before the end."
        )
        relay = self._ask_relay()
        self._name = self._ask_name()
        self._protect()
        self._make_keys()
        relay = self._confirmed(relay)
        own = self._register(relay)
        self._show_identity(own)

    def outcome(self) -> str:
        """What is so when the person leaves."""
        if self._asked_relay:
            return "Set-up stopped before the relay said yes. Start Saltline again to go on."
        return "Set-up stopped. Nothing was registered."

    # --- Questions ----------------------------------------------------------------------------

    def _ask_relay(self) -> RelaySeen:
        self._title("Relay")
        suggested = shown(self._steps.suggested_relay(), newlines=False)
        for _ in range(TRIES):
            text = self._ask("Relay (HOST:PORT): ", default=suggested).strip()
            try:
                address = str(parse_relay_address(text))
                self.tell(f"Connecting to {address} ...")
                return self._steps.look_at_relay(address)
            except (BadName, Refused) as error:
                self._wrong(error)
        raise _Stopped

    def _ask_name(self) -> str:
        self._title("Name")
        self.tell("How others find you here. It is public, and never given to anybody else.")
        for _ in range(TRIES):
            text = self._ask("Your name: ").strip().lower()
            try:
                name = check_user(text)
            except BadName as error:
                self._wrong(error)
                continue
            if not is_reserved(name):
                return name
            self._wrong(Refused(f"{name} is, or looks like, a name that nobody can have."))
        raise _Stopped

    def _protect(self) -> None:
        self._title("Passphrase")
        self.tell(
            "Your keys and messages are encrypted on this computer with a passphrase. It is not "
            "sent anywhere, and nobody can reset it: who forgets it loses both."
        )
        for _ in range(TRIES):
            passphrase = self._ask_passphrase()
            try:
                self._steps.keep_passphrase(passphrase)
                return
            except Refused as error:
                self._wrong(error)
        raise _Stopped

    def _ask_passphrase(self) -> str | None:
        for _ in range(TRIES):
            first = self._ask("Passphrase: ", hidden=True)
            if not first:
                if self._refused_passphrase():
                    return None
                continue
            if len(first) < PASSPHRASE_SHORT and not self._keeps_short():
                continue
            if self._ask("The same again: ", hidden=True) == first:
                return first
            self._wrong(Refused("The two differ. Nothing was saved."))
        raise _Stopped

    def _keeps_short(self) -> bool:
        self.tell(
            f"Shorter than {PASSPHRASE_SHORT} characters: whoever copies this disk could find it "
            "by trying. Four words that nobody else would put together are better."
        )
        return self._yes("Use it all the same? (yes/no) ")

    def _refused_passphrase(self) -> bool:
        self.tell(
            "Without one, whoever can read this disk or a backup of it can read your messages and "
            f"pose as you. To go on like that, type: {REFUSAL}"
        )
        return self._ask("(Enter chooses a passphrase) ").strip().lower() == REFUSAL

    def _make_keys(self) -> None:
        self._repeat(self._steps.make_keys)
        self.tell("Your keys are made on this computer, and the private halves never leave it.")

    def _confirmed(self, relay: RelaySeen) -> RelaySeen:
        """Make sure that the relay is the one that was meant."""
        for _ in range(TRIES):
            self._title("Certificate")
            if relay.vouched:
                by = shown(relay.vouched, newlines=False)
                self.tell(f"{relay.address} is the relay that was meant: vouched for by {by}.")
                return relay
            self.tell(f"The key of {relay.address} has the fingerprint")
            for row in grouped(relay.pin.removeprefix("sha256:")):
                self._write(f"    {row}")
            self.tell("or, as the relay prints it when it starts,")
            self._write(f"  {shown(relay.pin, newlines=False)}")
            self.tell(
                "Compare it with what the relay's admin told you. If it differs, somebody may be "
                "between you."
            )
            if self._is_same_key(relay):
                return relay
            self.tell("Nothing is registered there. Which relay did you mean?")
            relay = self._ask_relay()
        raise _Stopped

    def _is_same_key(self, relay: RelaySeen) -> bool:
        for _ in range(TRIES):
            answer = self._ask("Is it the same? (yes, no, or paste the admin's) ").strip().lower()
            if answer in ("yes", "no"):
                return answer == "yes"
            found = _PIN.fullmatch(answer)
            if found is None:
                self.tell("Please type yes or no, in full, or paste sha256: and all 64 digits.")
            elif hmac.compare_digest(f"sha256:{found[1]}", relay.pin):
                return True
            else:
                self._wrong(Refused(f"That is not the key that {relay.address} shows."))
                return False
        raise _Stopped

    def _register(self, relay: RelaySeen) -> ContactInfo:
        self._title("Registration")
        for _ in range(TRIES):
            try:
                self._asked_relay = True
                self.tell(f"Registering {self._name} at {relay.address} ...")
                return self._steps.register(relay, self._name, self._invite)
            except StepRefused as refused:
                self._wrong(refused)
                match refused.step:
                    case Step.NAME:
                        self._name = self._ask_name()
                    case Step.INVITE:
                        self._invite = self._ask("Invite code, from the relay's admin: ").strip()
                    case Step.RELAY:
                        relay = self._confirmed(self._ask_relay())
                    case Step.PASSPHRASE:
                        self._protect()
                    case Step.AGAIN:
                        self._ask("Enter tries again, Ctrl-C stops. ")
            except Refused as refused:
                self._wrong(refused)
                self._ask("Enter tries again, Ctrl-C stops. ")
        raise _Stopped

    def _show_identity(self, own: ContactInfo) -> None:
        self._title(f"You are {own.username}")
        self.tell(
            "Registered. Friends find you by your name. To make sure that nobody sits between you, "
            "/verify NAME shows 60 digits that belong to the two of you: compare them in person. "
            "The fingerprint of your own key, which is public:"
        )
        for row in grouped(own.fingerprint):
            self._write(f"    {row}")
        unicode = "utf" in self._output.encoding().lower()
        rows = qr_rows(identity_text(own), ascii_only=not unicode)
        if len(rows[0]) < self._output.get_size().columns:
            for row in ["", *rows, ""]:
                self._write(row)
        self.tell("/fingerprint and /qr show it again.")
        with suppress(KeyboardInterrupt, EOFError):  # registered is registered
            self._ask("Enter opens #lobby, which is PUBLIC. ")

    # --- Asking and telling -------------------------------------------------------------------

    def _repeat(self, work: Callable[[], None]) -> None:
        for _ in range(TRIES):
            try:
                return work()
            except Refused as error:
                self._wrong(error)
                self._ask("Enter tries again, Ctrl-C stops. ")
        raise _Stopped

    def _ask(self, question: str, *, default: str = "", hidden: bool = False) -> str:
        # A session for each question: no history that would offer a passphrase again.
        session: PromptSession[str] = PromptSession()
        return session.prompt(question, default=default, is_password=hidden)

    def _yes(self, question: str) -> bool:
        for _ in range(TRIES):
            answer = self._ask(question).strip().lower()
            if answer in ("yes", "no"):
                return answer == "yes"
            self.tell("Please type yes or no, in full.")
        raise _Stopped

    def _wrong(self, error: BadName | Refused) -> None:
        self.tell(f"! {shown(str(error))}")

    def _title(self, text: str) -> None:
        self._write("")
        self._write(f"-- {shown(text, newlines=False)} --")

    def tell(self, text: str) -> None:
        """Print a paragraph; `text` is safe to show."""
        columns = min(COLUMNS_MAX, max(20, self._output.get_size().columns - 1))
        for line in textwrap.wrap(text, columns):
            self._write(line)

    def _write(self, line: str) -> None:
        self._output.write(line + "\r\n")
        self._output.flush()
