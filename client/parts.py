"""The parts of the core, and the turn that they share."""

from collections.abc import Iterator
from contextlib import contextmanager

from saltline.client.contacts import Contacts
from saltline.client.context import ENDED, Context
from saltline.client.devices import Devices
from saltline.client.incoming import Incoming
from saltline.client.model import Delivery, ExitCode, LineChanged
from saltline.client.outgoing import Outgoing
from saltline.client.posting import Posting
from saltline.client.publishing import Publishing
from saltline.client.rooms import Rooms
from saltline.client.vault import views
from saltline.client.vault.database import Vault, VaultError
from saltline.client.writing import Writing
from saltline.crypto.primitives import Random


class Parts:
    """One of each, over one context."""

    def __init__(self, vault: Vault, random: Random) -> None:
        self.context = Context(vault, random)
        self.context.keys = views.own_keys(vault)
        self.contacts = Contacts(self.context)
        self.devices = Devices(self.context)
        self.incoming = Incoming(self.context, self.contacts, self.devices)
        self.outgoing = Outgoing(self.context, self.contacts, self.devices)
        self.writing = Writing(self.context, self.contacts, self.outgoing)
        self.rooms = Rooms(self.context, self.contacts)
        self.posting = Posting(self.context, self.rooms)
        self.publishing = Publishing(self.context)
        self._is_behind = False  # what waits has to be read again
        self._load()

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way, or could leave now."""
        return (
            self.incoming.is_busy
            or self.outgoing.is_busy
            or self.rooms.is_busy
            or self.posting.is_busy
            or self.publishing.is_busy
            or self.contacts.is_looking
        )

    @contextmanager
    def turn(self, now_ms: int) -> Iterator[None]:
        """One transaction; what it decided leaves after its commit, or not at all.

        Raises VaultError, and Refused where the person asked for what is not done.
        """
        context = self.context
        context.now_ms = now_ms
        keys = context.keys
        self.incoming.begin()
        try:
            with context.vault.transaction():
                if self._is_behind:
                    self._load()
                yield
                if context.ready:
                    self.writing.queue_receipts()
                    self.outgoing.pump()
                    self.posting.pump()
                    self.contacts.flush()
                self.incoming.flush()
                self.rooms.flush()
                self.devices.flush()
        except BaseException as error:
            context.drop_commands(error)
            context.keys = keys
            self._forget_caches()
            if isinstance(error, VaultError):
                self.link_lost()
            raise

    def _load(self) -> None:
        self.outgoing.load()
        self.posting.load()
        self._is_behind = False

    def _forget_caches(self) -> None:
        """The turn was rolled back: what is in memory may not be on the disk.

        Nothing is read here: a disk that failed would fail again.
        """
        self.contacts.forget_caches()
        self.devices.forget_caches()
        self.incoming.forget_caches()
        self.outgoing.forget_caches()
        self.rooms.forget_caches()
        self.context.timeline.may_owe_receipts = True
        self._is_behind = True

    def end(self) -> None:
        """The relay knows this device no more: what waits cannot leave from it."""
        context = self.context
        context.vault.set_meta("ended", 1)  # until a login succeeds after all
        for conversation in context.outbox.conversations():
            self.outgoing.owe_receipts_again(conversation)
            for item in context.outbox.items(conversation):
                context.outbox.remove(item.item)
                if context.timeline.set_delivery(item.row, Delivery.FAILED, ENDED):
                    context.emit(LineChanged(conversation, item.row, ExitCode.NOT_TRUSTED))
        self.outgoing.load()
        self.posting.load()

    def link_lost(self) -> None:
        """Forget what was on its way; the vault knows what is to be done again."""
        self.context.ready = False
        self.context.fail_all()
        self.contacts.link_lost()
        self.incoming.link_lost()
        self.outgoing.link_lost()
        self.rooms.link_lost()
        self.posting.link_lost()
        self.publishing.link_lost()
