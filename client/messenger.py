"""The messenger as a library: what the screen, the headless commands and bots drive."""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Final, TypeVar

import apsw

from saltline.client.certificates import format_pin
from saltline.client.commands import Command
from saltline.client.core import ClientCore
from saltline.client.engine import Engine, LinkPort
from saltline.client.failures import Closed, as_refused
from saltline.client.link import Link
from saltline.client.link_events import LinkEvent, Target
from saltline.client.model import (
    ContactInfo,
    ConversationSummary,
    Event,
    Line,
    Refused,
    Status,
    Trust,
)
from saltline.client.profile import Profile
from saltline.client.vault import views
from saltline.client.vault.database import AccountRow, Vault, VaultError
from saltline.client.vault.folder import sync_folder
from saltline.client.vault.people import PeopleStore
from saltline.client.vault.timeline import Timeline
from saltline.crypto.primitives import Random, system_random
from saltline.protocol.names import RelayAddress
from saltline.protocol.to_client import Member, RoomInfo

# What is on its way when the program ends gets this long; the vault has it anyway.
_FLUSH_S: Final = 2.0

Result = TypeVar("Result")
MakeLink = Callable[[Target, Callable[[LinkEvent], None]], LinkPort]


def target_of(account: AccountRow) -> Target:
    """Where an account's relay is, and what proves that it is the one."""
    return Target(RelayAddress(account.host, account.port), account.pin, account.ca_file)


class Client:
    """A profile that is open: its vault, its core in one thread, its link in another.

    Implements `saltline.client.model.Messenger`. Every method may be called from any thread and
    raises Refused; what changes the vault is on disk when the call returns. Reads use a connection
    of their own and never wait for what is being received.
    """

    def __init__(
        self, vault: Vault, *, random: Random = system_random, make_link: MakeLink = Link
    ) -> None:
        self._vault = vault  # for the engine's thread only, once that runs
        self._reader = vault.reader()
        self._reading = threading.Lock()  # tier 1: the reader is not for two threads at once
        self._make_link = make_link
        self._core = ClientCore(vault, random)
        self._engine = Engine(self._core)
        self._acquired: Profile | None = None  # to be given back
        self._closing = threading.Lock()
        self._closed = False
        self._engine.start()

    @classmethod
    def open(
        cls,
        profile: Profile,
        key: bytes,
        *,
        random: Random = system_random,
        make_link: MakeLink = Link,
    ) -> "Client":
        """Open the vault of `profile` with its 32-byte key; own it till `close`, or as before.

        A profile without a vault gets one. Nothing is sent before `start` or `register`. Raises
        Refused, also for a wrong key, and Busy.
        """
        owned_before = profile.owned
        profile.acquire()
        try:
            if not profile.is_set_up:
                _create_vault(profile.vault_path, key)
            client = cls(Vault.open(profile.vault_path, key), random=random, make_link=make_link)
        except BaseException as error:
            if not owned_before:
                profile.release()
            if isinstance(error, VaultError):
                raise as_refused(error) from None
            raise
        client._acquired = None if owned_before else profile
        return client

    def close(self) -> None:
        """Hang up, end the threads, close the vault, give the profile back. Again: nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        link = self._engine.link
        if link is not None:
            link.stop(_FLUSH_S)
        self._engine.stop()
        with self._reading:
            self._reader.close()
        self._vault.close()
        if self._acquired is not None:
            self._acquired.release()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the account and its relay -------------------------------------------------------------

    @property
    def account(self) -> AccountRow | None:
        """The account; None before the first `register`."""
        return self._read(lambda vault: vault.account())

    def register(self, username: str, target: Target, invite: str = "") -> "Future[str]":
        """Register at a relay and connect; the future is the user name.

        Asking again after a lost answer repeats the same registration. Fails with Refused, also
        as soon as the relay cannot be reached.
        """

        def work(ticket: int, now_ms: int) -> list[Command]:
            known = self._vault.account()
            if known is not None and known.registered:
                raise Refused(f"This profile is {known.username} already. Nothing was changed.")
            if known is None or (known.host, known.port) != astuple(target.address):
                known = AccountRow("", "", 0)  # keys are made for one relay
            with self._vault.transaction():
                self._vault.save_account(_placed(known, target))
            commands = self._core.begin_registration(username, invite, ticket, now_ms)
            self._connect(target)
            return commands

        return self._engine.ask(work, impatient=True)

    def start(self) -> None:
        """Connect, and stay connected. Does nothing while there is no account."""

        def work(now_ms: int) -> tuple[None, list[Command]]:
            account = self._vault.account()
            if account is not None and account.registered and self._engine.link is None:
                self._connect(target_of(account))
            return None, []

        self._engine.call(work)

    def change_relay(self, target: Target) -> None:
        """The relay moved, or has another key: remember it, and go there if connected."""

        def work(now_ms: int) -> tuple[None, list[Command]]:
            account = self._vault.account()
            if account is None:
                raise Refused("This profile has no account yet: saltline register")
            with self._vault.transaction():
                self._vault.save_account(_placed(account, target))
            if self._engine.link is not None:
                self._connect(target)
            return None, []

        self._engine.call(work)

    def _connect(self, target: Target) -> None:
        if self._engine.link is None:
            self._engine.attach(self._make_link(target, self._engine.deliver))
        else:
            self._engine.link.retarget(target)

    def reconnect(self) -> None:
        """Try now instead of when the waiting time is over."""
        link = self._engine.link
        if link is not None:
            link.reconnect()

    # --- watching ------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event, from the client's thread; returns how to stop it."""
        return self._engine.subscribe(callback)

    def when_idle(self) -> "Future[None]":
        """Done when all is sent, received and receipted; fails when the relay is refused."""
        return self._engine.when_idle()

    def status(self) -> Status:
        """The profile and its link."""
        account = self.account
        queued, unread = self._read(views.status_counts)
        connection = self._engine.connection
        common = {
            "connection": connection.state,
            "detail": connection.detail,
            "round_trip_ms": self._core.round_trip_ms,
            "queued": queued,
            "unread": unread,
        }
        if account is None:
            return Status("", "", "", "", "", **common)  # type: ignore[arg-type]
        relay_id = hashlib.sha256(account.log_key).hexdigest() if account.log_key else ""
        return Status(
            account.username,
            str(RelayAddress(account.host, account.port)),
            relay_id,
            format_pin(account.pin) if account.pin else "",
            self.own_identity().fingerprint,
            **common,  # type: ignore[arg-type]
        )

    # --- reading -------------------------------------------------------------------------------

    def _read(self, query: Callable[[Vault], Result]) -> Result:
        with self._reading:
            if self._closed:
                raise Closed()
            try:
                return query(self._reader)
            except (apsw.Error, VaultError) as error:
                raise as_refused(
                    VaultError(f"The vault cannot be read ({type(error).__name__}).")
                ) from None

    def conversations(self) -> Sequence[ConversationSummary]:
        """Private conversations by last activity, then rooms by name."""
        return self._read(views.conversations)

    def contacts(self) -> Sequence[ContactInfo]:
        """Everybody who was met in private."""
        return self._read(views.contacts)

    def contact(self, username: str) -> ContactInfo:
        """What the vault knows of a person; Trust.UNKNOWN for a stranger."""
        return self._read(lambda vault: views.contact(vault, username))

    def trust_in(self, username: str) -> Trust:
        """The trust alone: `contact` computes the safety number, 10,400 hashes."""

        def query(vault: Vault) -> Trust:
            people = PeopleStore(vault)
            return views.trust_of(people.person(username), bool(people.entries(username)))

        return self._read(query)

    def own_identity(self) -> ContactInfo:
        """Ourselves, as others see us."""
        return self._read(views.own_identity)

    def line(self, row: int) -> Line | None:
        """One line."""
        return self._read(lambda vault: views.line(vault, row))

    def page(
        self, conversation: str, *, before: int | None = None, after: int | None = None, limit: int
    ) -> Sequence[Line]:
        """Lines in order: the last `limit` with row < before, or the first with row > after."""
        return self._read(
            lambda vault: views.page(vault, conversation, before=before, after=after, limit=limit)
        )

    def count(self, conversation: str, *, after: int = 0) -> int:
        """How many lines have a row above `after`."""
        return self._read(lambda vault: views.count(vault, conversation, after=after))

    def search(self, query: str, conversation: str | None, limit: int) -> Sequence[Line]:
        """Newest first; every word of `query` must occur."""
        return self._read(lambda vault: views.search(vault, query, conversation, limit))

    def unprinted(self, limit: int) -> Sequence[Line]:
        """What others sent and no `recv` has printed, in order."""
        return self._read(lambda vault: Timeline(vault).unprinted(limit))

    # --- changing ------------------------------------------------------------------------------

    def _act(self, work: Callable[[int], list[Command]]) -> None:
        self._engine.call(lambda now_ms: (None, work(now_ms)))

    def send(self, username: str, text: str, message_id: bytes = b"") -> Line:
        """Queue a private message; it is encrypted and leaves when it can.

        `message_id`: 16 random bytes; who asks again with the same gets the line that is there.
        """
        core = self._core
        return self._engine.call(lambda now_ms: core.send(username, text, now_ms, message_id))

    def post(self, room: str, text: str, message_id: bytes = b"") -> Line:
        """Queue a public message; the room is joined if need be. `message_id`: as in `send`."""
        core = self._core
        return self._engine.call(lambda now_ms: core.post(room, text, now_ms, message_id))

    def retry(self, row: int) -> None:
        """Queue a failed message again."""
        self._act(lambda now_ms: self._core.retry(row, now_ms))

    def mark_read(self, conversation: str, row: int) -> None:
        """Lines up to this one have been read."""
        self._act(lambda now_ms: self._core.mark_read(conversation, row, now_ms))

    def mark_printed(self, row: int) -> None:
        """Lines up to this one have left through standard output."""
        self._act(lambda now_ms: self._core.mark_printed(row, now_ms))

    def accept(self, username: str) -> None:
        """Take a stranger's request."""
        self._act(lambda now_ms: self._core.accept(username, now_ms))

    def block(self, username: str) -> None:
        """Take nothing more from somebody."""
        self._act(lambda now_ms: self._core.block(username, now_ms))

    def unblock(self, username: str) -> None:
        """Take messages from somebody again."""
        self._act(lambda now_ms: self._core.unblock(username, now_ms))

    def verify(self, username: str, number: str | None = None) -> ContactInfo:
        """Mark verified; with `number`, only if it is the safety number."""
        return self._engine.call(lambda now_ms: self._core.verify(username, number, now_ms))

    def trust(self, username: str, number: str) -> ContactInfo:
        """Accept a changed key as first seen; `number` is the new safety number."""
        return self._engine.call(lambda now_ms: self._core.trust(username, number, now_ms))

    # --- asking the relay ----------------------------------------------------------------------

    def fetch_contact(self, username: str) -> "Future[ContactInfo]":
        """A person, after looking the account up on the relay."""
        return self._engine.ask(lambda t, now_ms: self._core.fetch_contact(username, t, now_ms))

    def join(self, room: str) -> "Future[None]":
        """Become a member of a room."""
        return self._engine.ask(lambda ticket, now_ms: self._core.join(room, ticket, now_ms))

    def leave(self, room: str) -> "Future[None]":
        """End the membership of a room."""
        return self._engine.ask(lambda ticket, now_ms: self._core.leave(room, ticket, now_ms))

    def who(self, room: str) -> "Future[Sequence[Member]]":
        """Who is a member of a room."""
        return self._engine.ask(lambda ticket, now_ms: self._core.who(room, ticket, now_ms))

    def rooms(self) -> "Future[Sequence[RoomInfo]]":
        """The relay's public rooms."""
        return self._engine.ask(lambda ticket, now_ms: self._core.list_rooms(ticket, now_ms))


def _placed(account: AccountRow, target: Target) -> AccountRow:
    address = target.address
    return replace(
        account, host=address.host, port=address.port, pin=target.pin, ca_file=target.ca_file
    )


def _create_vault(path: Path, key: bytes) -> None:
    """Under another name first: a vault that is there is whole. Raises VaultError."""
    unfinished = path.with_name(path.name + ".new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(f"{unfinished}{suffix}")
    Vault.create(unfinished, key).close()
    os.replace(unfinished, path)
    sync_folder(path.parent)
