"""The first run's steps on a real profile: what the screens of set-up ask for, done."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from saltline.client.certificates import inspect_relay, parse_pin
from saltline.client.failures import Closed
from saltline.client.link_events import Target
from saltline.client.messenger import Client, target_of
from saltline.client.model import ContactInfo, ExitCode, Refused
from saltline.client.profile import Profile
from saltline.client.registration import Wish, finish_registration
from saltline.protocol.errors import ErrorCode
from saltline.protocol.names import RelayAddress, parse_relay_address

if TYPE_CHECKING:  # what belongs to the screen is loaded with the screen
    from saltline.client.tui.setup_steps import RelaySeen

_VOUCHED: Final = "a certificate authority of this system"
_STEPS: Final = {
    ErrorCode.BAD_NAME: "name",
    ErrorCode.NAME_TAKEN: "name",
    ErrorCode.INVITE_NEEDED: "invite",
    ErrorCode.BAD_INVITE: "invite",
    ErrorCode.RATE_LIMITED: "again",
    ErrorCode.TOO_MANY_CONNECTIONS: "again",
    ErrorCode.STORAGE_FAILED: "again",
    ErrorCode.STOPPING: "again",
}


class ProfileSetup:
    """Implements `saltline.client.tui.setup_steps.SetupSteps` on a profile that this process owns.

    `close` ends it: what never got as far as keys at a relay is removed again. After `register` the
    client is `taken` by whoever shows the screen.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._client: Client | None = None

    # --- SetupSteps ----------------------------------------------------------------------------

    def suggested_relay(self) -> str:
        """HOST:PORT of an unfinished set-up, else ""."""
        account = None if self._client is None else self._client.account
        return "" if account is None else str(RelayAddress(account.host, account.port))

    def look_at_relay(self, address: str) -> "RelaySeen":
        """Connect and read the certificate. Sends neither a name nor a signature."""
        from saltline.client.tui.setup_steps import RelaySeen

        seen = inspect_relay(parse_relay_address(address))
        return RelaySeen(address, seen.pin, _VOUCHED if seen.vouched else "")

    def keep_passphrase(self, passphrase: str | None) -> None:
        """Make the vault; again: with another passphrase, as long as nothing is in it."""
        self.close()
        key = self._profile.create_key(passphrase)
        self._client = Client.open(self._profile, key)

    def make_keys(self) -> None:
        """Nothing: keys name the relay that they are for, and are made and saved when it answers.

        They are on the disk before anything of them leaves (docs/protocol.md §5).
        """

    def register(self, relay: "RelaySeen", username: str, invite: str) -> ContactInfo:
        """Register at this relay, if it still shows this key; returns ourselves."""
        client = self._opened()
        target = Target(parse_relay_address(relay.address), parse_pin(relay.pin))
        if relay.vouched:
            target = replace(target, pin=b"")
        try:
            finish_registration(client, Wish(username, target, invite))
        except Refused as refused:
            account = client.account
            if account is None or not account.registered:
                raise _as_step(refused) from None
            # Registered; what is left to publish leaves as soon as the screen is there.
        return client.own_identity()

    # --- for who runs the set-up ---------------------------------------------------------------

    def take(self) -> Client:
        """The client with its new account; the caller closes it."""
        client = self._opened()
        self._client = None
        return client

    def close(self) -> None:
        """Close what was opened, and forget it unless a relay may know of it."""
        client, self._client = self._client, None
        if client is None:
            return
        account = client.account
        client.close()
        if account is None or not account.identity:
            self._profile.discard_set_up()

    def _opened(self) -> Client:
        if self._client is None:
            raise Closed
        return self._client


def resume(client: Client) -> None:
    """Finish a registration whose answer never came: the relay may have the account already.

    Raises Refused.
    """
    account = client.account
    if account is None:
        raise Refused("This profile has no account yet. Make one with: saltline register")
    finish_registration(client, Wish(account.username, target_of(account), account.invite))


def _as_step(refused: Refused) -> Refused:
    """Which answer of the person can mend it."""
    from saltline.client.tui.setup_steps import Step, StepRefused

    step = next((step for code, step in _STEPS.items() if refused.relay_code == code), "")
    if refused.code is ExitCode.UNREACHABLE:
        step = "relay"
    elif refused.code is ExitCode.TIMED_OUT:
        step = "again"
    return StepRefused(refused.sentence, Step(step), refused.code) if step else refused
