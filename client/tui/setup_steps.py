"""What the first run asks of the client. No toolkit here: headless commands may import this."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from saltline.client.model import ContactInfo, ExitCode, Refused


class Step(StrEnum):
    """Where set-up goes back to when the relay refuses."""

    RELAY = "relay"
    NAME = "name"
    INVITE = "invite"
    PASSPHRASE = "passphrase"
    AGAIN = "again"  # nothing to correct: the same once more


class StepRefused(Refused):
    """A refusal that one answer of the person can mend. The text is the sentence."""

    def __init__(self, sentence: str, step: Step, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(sentence, code)
        self.step = step


@dataclass(frozen=True, slots=True)
class RelaySeen:
    """A relay that answered."""

    address: str  # HOST:PORT
    pin: str  # "sha256:" and 64 hexadecimal digits, of the key that its certificate holds
    vouched: str  # who says that it is the one, or "": the person has to compare


class SetupSteps(Protocol):
    """What set-up does, one small step after the other.

    Every method may block for some seconds and raises Refused, or StepRefused where one answer
    can be corrected. Nothing is registered before `register`.
    """

    def suggested_relay(self) -> str:
        """HOST:PORT from the command line or an unfinished set-up, else ""."""

    def look_at_relay(self, address: str) -> RelaySeen:
        """Connect and read the certificate. Sends neither a name nor a signature.

        A given pin that does not match is Refused at once.
        """

    def keep_passphrase(self, passphrase: str | None) -> None:
        """Make the vault. None, chosen in so many words: its key lies beside it, mode 0600."""

    def make_keys(self) -> None:
        """Make the identity key and prekeys, and save them."""

    def register(self, relay: RelaySeen, username: str, invite: str) -> ContactInfo:
        """Register at this relay, if it still shows this key, and join #lobby; returns ourselves.

        StepRefused: NAME (taken, reserved, too alike), INVITE (needed, unknown, used up), RELAY
        (unreachable, another certificate), AGAIN (too many at the moment).
        """
