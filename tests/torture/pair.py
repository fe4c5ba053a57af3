"""Two real clients, vaults and all, who talk through a relay that dies under them."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self
from unittest.mock import patch

from saltline.client.certificates import parse_pin
from saltline.client.link_events import Target
from saltline.client.messenger import Client
from saltline.client.model import Delivery, LineKind
from saltline.client.profile import Profile
from saltline.client.registration import Wish, finish_registration
from saltline.protocol import limits
from saltline.protocol.names import RelayAddress
from tests.torture.ledger import Ledger
from tests.torture.mortal_relay import MortalRelay
from tests.waiting import wait_until

LANE = "alice>bob"


class Pair:
    """Alice sends, Bob shows; the ledger hears of both when they `finish`."""

    def __init__(self, relay: MortalRelay, ledger: Ledger, folder: Path) -> None:
        self.relay = relay
        self.ledger = ledger
        self._folder = folder
        self._stack = ExitStack()
        self.rows: list[int] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Fewer prekeys are made at once; nothing else changes.
            stack.enter_context(
                patch.multiple(
                    limits,
                    ONE_TIME_PREKEYS=8,
                    ONE_TIME_PREKEYS_REFILL_BELOW=2,
                    ONE_TIME_KEM_PREKEYS=4,
                    ONE_TIME_KEM_PREKEYS_REFILL_BELOW=1,
                )
            )
            target = Target(RelayAddress("127.0.0.1", self.relay.port), parse_pin(self.relay.pin))
            self.alice, self.bob = (
                stack.enter_context(self._client(name, target)) for name in ("alice", "bob")
            )
            self._stack = stack.pop_all()
        return self

    def _client(self, name: str, target: Target) -> Client:
        profile = Profile(self._folder / name, create=True)
        client = Client.open(profile, profile.create_key(None))
        try:
            finish_registration(client, Wish(name, target))
        except BaseException:
            client.close()
            raise
        return client

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, count: int) -> None:
        """Alice writes some more."""
        for _ in range(count):
            number = len(self.rows) + 1
            self.ledger.sent(LANE, number)
            self.rows.append(self.alice.send("bob", f"text {number}").row)

    def reconnect(self) -> None:
        """The relay serves again: nobody waits for longer and longer."""
        self.alice.reconnect()
        self.bob.reconnect()

    def finish(self) -> None:
        """Wait until all of it has come, and tell the ledger what each of them has on screen."""
        wait_until(lambda: not self.alice.status().queued, "the relay has all of it")
        wait_until(lambda: self.bob.count("@alice") >= len(self.rows), "bob has all of it")
        for number, row in enumerate(self.rows, 1):
            line = self.alice.line(row)
            assert line is not None
            if line.delivery in (Delivery.RELAYED, Delivery.DELIVERED):
                self.ledger.acknowledged(LANE, number)
        for line in self.bob.page("@alice", limit=2 * len(self.rows) + 10):
            assert line.kind is LineKind.TEXT, line
            self.ledger.shown(LANE, int(line.body.removeprefix("text ")))
