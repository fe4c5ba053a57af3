"""Power cuts under the client's vault: what was queued survives, and what came is shown once.

The real core and vault on a disk in memory that forgets what was not synced; the relay's real core
at the other end. The same must fail where the vault does not wait for the disk.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

from saltline.client.model import LineKind
from saltline.client.vault.database import Vault, VaultError
from saltline.protocol import limits
from saltline.server.settings import Settings
from tests.client.world import MemoryRelay, Person, settle
from tests.torture.ledger import Ledger
from tests.torture.trial import Figures, Scale
from tests.volatile_disk import VolatileDisk

KEY = bytes(32)
LOBBY = "#lobby"
# A turn makes some 20 of them; most cuts come in the middle of something.
_OPERATIONS_MAX = 120


class Powered(Person):
    """Somebody whose computer loses its power, and whose vault is as it is shipped."""

    def __init__(self, relay: MemoryRelay, folder: Path, name: str) -> None:
        self.disk = VolatileDisk()
        super().__init__(relay, folder, name)

    def _create_vault(self) -> Vault:
        return Vault.create(self.disk.path("vault.db"), KEY, vfs=self.disk.cipher_vfs)

    def _open_vault(self) -> Vault:
        return Vault.open(self.disk.path("vault.db"), KEY, vfs=self.disk.cipher_vfs)

    def lose_power(self, chance: random.Random) -> None:
        """And have it back: from what is on the disk, alone."""
        self.disk.cut(chance)
        self.crash()


class Careless(Powered):
    """Whose vault does not wait for the disk."""

    def _create_vault(self) -> Vault:
        return _careless(super()._create_vault())

    def _open_vault(self) -> Vault:
        return _careless(super()._open_vault())


def _careless(vault: Vault) -> Vault:
    vault.run("PRAGMA synchronous = normal")
    return vault


class Household:
    """Two people who write to each other and into a room, whatever happens to their power."""

    def __init__(self, folder: Path, kind: type[Powered], seed: int) -> None:
        folder.mkdir()
        self.chance = random.Random(seed)
        self.relay = MemoryRelay(folder, Settings(registrations_per_minute_and_address=1000))
        self.people = [kind(self.relay, folder / name, name) for name in ("alice", "bob")]
        self.ledger = Ledger()
        self._number = 0
        for person in self.people:
            person.online()

    def queue(self, lane: str, say: Callable[[str], object]) -> None:
        """A text, which its author may believe to be queued when the call has returned."""
        self._number += 1
        self.ledger.sent(lane, self._number)
        try:
            say(f"text {self._number}")
        except VaultError:
            return
        self.ledger.acknowledged(lane, self._number)

    def talk(self) -> None:
        """Each writes to the other, and sometimes into the room."""
        for author, reader in (self.people, self.people[::-1]):
            self.queue(f"{author.name}>{reader.name}", partial(author.send, reader.name))
            if self.chance.random() < 0.3:
                self.queue(f"{author.name}>{LOBBY}>{reader.name}", partial(author.post, LOBBY))
        settle(*self.people)

    def cut(self) -> None:
        """Somebody's power goes in the middle of what they do next."""
        victim = self.chance.choice(self.people)
        victim.disk.cut_after(self.chance.randint(1, _OPERATIONS_MAX))
        while not victim.disk.is_down:
            self.pass_time(1)
            self.talk()
        victim.lose_power(self.chance)
        victim.online()
        settle(*self.people)

    def pass_time(self, seconds: int) -> None:
        self.relay.now_ms += seconds * 1000
        for person in self.people:
            person.tick()
            if person.link is None and not person.disk.is_down:
                person.online()

    def finish(self) -> None:
        """Everything that waits for a second try gets it; then, what each shows."""
        for _ in range(4):
            self.pass_time(31)
            settle(*self.people)
        for reader, author in (self.people, self.people[::-1]):
            for conversation in (f"@{author.name}", LOBBY):
                room = f"{LOBBY}>" if conversation == LOBBY else ""
                for line in reader.lines(conversation):
                    assert line.kind not in (LineKind.NOTICE, LineKind.ALERT), line
                    if line.kind is LineKind.TEXT and not line.mine:
                        number = int(line.body.removeprefix("text "))
                        self.ledger.shown(f"{author.name}>{room}{reader.name}", number)


def live_through(folder: Path, kind: type[Powered], cuts: int, seed: int) -> Ledger:
    """What came of it. Raises AssertionError where a timeline shows damage."""
    household = Household(folder, kind, seed)
    for _ in range(cuts):
        household.cut()
    household.finish()
    return household.ledger


def loses_without_waiting(folder: Path) -> int:
    """The seed with which a vault that does not wait for the disk was seen to lose something."""
    for seed in range(20):
        with suppress(AssertionError):  # it was damaged, which is another thing than loss
            ledger = live_through(folder / f"careless {seed}", Careless, 10, seed)
            if ledger.verdict().lost:
                return seed
    raise AssertionError("a vault that does not wait for the disk loses nothing: cuts are not cuts")


def run(scale: Scale, folder: Path) -> Figures:
    """Cuts at moments drawn by chance; and the trial tried."""
    with patch.multiple(
        limits,
        ONE_TIME_PREKEYS=6,
        ONE_TIME_PREKEYS_REFILL_BELOW=2,
        ONE_TIME_KEM_PREKEYS=4,
        ONE_TIME_KEM_PREKEYS_REFILL_BELOW=2,
    ):
        cuts = scale.of(30, 1000)
        figures = live_through(folder / "people", Powered, cuts, 5).hold(cuts)
        lost_by = loses_without_waiting(folder)
    return {"cuts": cuts, **figures, "without waiting": f"lost by seed {lost_by}"}
