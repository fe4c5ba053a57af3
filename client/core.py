"""The client as a pure core: intents and relay messages in, commands out.

No sockets, threads or clock. Every call is one transaction of the vault, committed before the
commands that it returns exist (docs/protocol.md §5).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from saltline.client.commands import Command, Disconnect
from saltline.client.connection import Connection
from saltline.client.contacts import UNKNOWN
from saltline.client.context import Refusal
from saltline.client.model import (
    ConnectionState,
    ContactInfo,
    ConversationChanged,
    ExitCode,
    Line,
    Refused,
)
from saltline.client.parts import Parts
from saltline.client.posting import checked_room
from saltline.client.vault import views
from saltline.client.vault.database import Vault, VaultError
from saltline.crypto.keylog import Account
from saltline.crypto.primitives import Random
from saltline.protocol.messages import RelayMessage
from saltline.protocol.names import BadName, check_user
from saltline.protocol.to_client import Members, RoomList
from saltline.protocol.to_relay import ListRooms, Who

Result = TypeVar("Result")

# How long a used key may stay in the vault's log while nothing happens.
_TIDY_EVERY_MS: Final = 10_000


class ClientCore:
    """One profile's messenger. Not for two threads at once."""

    def __init__(self, vault: Vault, random: Random) -> None:
        self._parts = Parts(vault, random)
        self._ctx = self._parts.context
        self._connection = Connection(self._parts)
        self._tidied_ms = 0

    # --- state ---------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Logged in."""
        return self._ctx.ready

    @property
    def caught_up(self) -> bool:
        """All that waited on the relay at login has come."""
        return self._connection.caught_up

    @property
    def round_trip_ms(self) -> int | None:
        """How long the last ping took."""
        return self._connection.round_trip_ms

    def idle(self) -> bool:
        """Nothing to send, to receive or to wait for."""
        return self.ready and self.caught_up and not self._parts.is_busy

    def queued(self) -> int:
        """Messages that the relay does not have."""
        return self._ctx.outbox.count()

    # --- turns ---------------------------------------------------------------------------------

    def _do(self, now_ms: int, work: Callable[[], Result]) -> tuple[Result, list[Command]]:
        try:
            with self._parts.turn(now_ms):
                result = work()
        except VaultError as error:
            self._connection.vault_failed(str(error))
            raise
        return result, self._ctx.take_commands()

    def _act(self, now_ms: int, work: Callable[[], object]) -> list[Command]:
        return self._do(now_ms, work)[1]

    def _link_turn(self, now_ms: int, work: Callable[[], None]) -> list[Command]:
        """A turn that the link started: a vault that fails ends the link, and is tried again."""
        try:
            return self._act(now_ms, work)
        except VaultError as error:
            self._connection.lost()
            answers = self._ctx.take_commands()
            return [*answers, Disconnect(ConnectionState.OFFLINE, str(error), retry=True)]

    # --- the link ------------------------------------------------------------------------------

    def link_up(self, spki_hash: bytes, now_ms: int) -> list[Command]:
        """TLS is up and the link accepted the certificate, whose key has this SHA-256."""
        return self._link_turn(now_ms, lambda: self._connection.begin(spki_hash))

    def link_down(self, now_ms: int) -> list[Command]:
        """The connection is gone."""
        return self._link_turn(now_ms, self._connection.lost)

    def received(self, bodies: Sequence[bytes], now_ms: int) -> list[Command]:
        """Whole frames' bodies, in order; stored together. None: a part of one has come."""
        return self._link_turn(now_ms, lambda: self._connection.receive(bodies))

    def tick(self, now_ms: int) -> list[Command]:
        """Once a second: pings, deadlines, rotation, what waits for its time."""
        commands = self._link_turn(now_ms, self._connection.tick)
        with suppress(VaultError):  # what the turn decided leaves in any case
            if abs(now_ms - self._tidied_ms) >= _TIDY_EVERY_MS and not self._parts.is_busy:
                self._tidied_ms = now_ms
                self._ctx.vault.tidy()
        return commands

    # --- the account ---------------------------------------------------------------------------

    def begin_registration(
        self, username: str, invite: str, ticket: int, now_ms: int
    ) -> list[Command]:
        """The next connection registers; the ticket is answered with the user name.

        The account's row, with the relay's address, exists. Raises Refused.
        """

        def begin() -> None:
            account = self._ctx.account
            if account.registered:
                raise Refused(f"This profile is registered already, as {account.username}.")
            if (account.username, account.invite) != (username, invite):
                # Keys that were made for another name or code are of no use.
                account = replace(account, identity=b"", entry=b"", log_key=b"")
                self._ctx.keys = None
            self._ctx.vault.save_account(replace(account, username=username, invite=invite))
            self._connection.expect_registration(ticket)

        try:
            check_user(username)
        except BadName as error:
            raise Refused(str(error)) from None
        return self._act(now_ms, begin)

    # --- messages ------------------------------------------------------------------------------

    def _line(self, row: int) -> Line:
        line = self._ctx.timeline.line(row)
        assert line is not None
        return line

    def send(
        self, username: str, text: str, now_ms: int, message_id: bytes = b""
    ) -> tuple[Line, list[Command]]:
        """Queue a private message. Raises Refused. Again with the same id: nothing new."""
        queue = self._parts.writing.queue_text
        return self._do(now_ms, lambda: self._line(queue(username, text, message_id)))

    def post(
        self, room: str, text: str, now_ms: int, message_id: bytes = b""
    ) -> tuple[Line, list[Command]]:
        """Queue a public message. Raises Refused. Again with the same id: nothing new."""
        queue = self._parts.posting.queue_text
        return self._do(now_ms, lambda: self._line(queue(room, text, message_id)))

    def retry(self, row: int, now_ms: int) -> list[Command]:
        """Queue a failed message again. Raises Refused."""

        def again() -> None:
            line = self._ctx.timeline.line(row)
            if line is None:
                raise Refused("There is no such message.")
            is_room = line.conversation.startswith("#")
            part = self._parts.posting if is_room else self._parts.writing
            part.requeue(row)

        return self._act(now_ms, again)

    def mark_read(self, conversation: str, row: int, now_ms: int) -> list[Command]:
        """Lines up to this one have been read; their authors are told."""

        def mark() -> None:
            for message_id in self._ctx.timeline.mark_read(conversation, row):
                if conversation.startswith("@"):
                    self._ctx.timeline.owe_receipt(conversation[1:], message_id, read=True)
            self._ctx.emit(ConversationChanged(conversation))

        return self._act(now_ms, mark)

    def mark_printed(self, row: int, now_ms: int) -> list[Command]:
        """Lines up to this one have left through standard output."""
        return self._act(now_ms, lambda: self._ctx.timeline.mark_printed(row))

    # --- people --------------------------------------------------------------------------------

    def accept(self, username: str, now_ms: int) -> list[Command]:
        """Accept a stranger's request."""
        self._known_name(username)
        return self._act(now_ms, lambda: self._parts.contacts.accept(username))

    def block(self, username: str, now_ms: int) -> list[Command]:
        """Take nothing more from somebody, and send nothing."""
        self._known_name(username)
        return self._act(now_ms, lambda: self._parts.contacts.set_blocked(username, True))

    def unblock(self, username: str, now_ms: int) -> list[Command]:
        """The opposite."""
        self._known_name(username)

        def unblock() -> None:
            self._parts.contacts.set_blocked(username, False)
            self._parts.outgoing.stir()

        return self._act(now_ms, unblock)

    def verify(
        self, username: str, number: str | None, now_ms: int
    ) -> tuple[ContactInfo, list[Command]]:
        """Mark verified; with `number`, only if it is the safety number. Raises Refused."""
        return self._decide(username, now_ms, lambda: self._parts.contacts.verify(username, number))

    def trust(self, username: str, number: str, now_ms: int) -> tuple[ContactInfo, list[Command]]:
        """Take a changed key as first seen. Raises Refused."""
        return self._decide(
            username, now_ms, lambda: self._parts.contacts.accept_change(username, number)
        )

    def _decide(
        self, username: str, now_ms: int, decide: Callable[[], ContactInfo]
    ) -> tuple[ContactInfo, list[Command]]:
        self._known_name(username)

        def work() -> ContactInfo:
            info = decide()
            self._parts.outgoing.person_decided(username)
            return info

        return self._do(now_ms, work)

    def _known_name(self, username: str) -> None:
        try:
            check_user(username)
        except BadName as error:
            raise Refused(str(error)) from None
        if username == self._ctx.account.username:
            raise Refused("That is you. Nothing was changed.")

    def fetch_contact(self, username: str, ticket: int, now_ms: int) -> list[Command]:
        """Look somebody up on the relay; answered with ContactInfo."""
        self._known_name(username)

        def found(result: Account | Refusal) -> None:
            if isinstance(result, Account):
                self._ctx.answer(ticket, views.contact(self._ctx.vault, username))
            elif result is UNKNOWN:
                sentence = f"There is no user {username} on this relay."
                self._ctx.reject(ticket, Refused(sentence, ExitCode.UNKNOWN_NAME))
            else:
                self._ctx.reject(ticket, result.as_refused())

        def ask() -> None:
            self._check_online()
            self._parts.contacts.look_up(username, found)

        return self._act(now_ms, ask)

    # --- rooms ---------------------------------------------------------------------------------

    def _check_online(self) -> None:
        if not self.ready:
            raise Refused(
                "Not connected to the relay: that cannot be asked now.", ExitCode.UNREACHABLE
            )

    def join(self, room: str, ticket: int, now_ms: int) -> list[Command]:
        """Become a member of a room; a new one is made."""

        def ask() -> None:
            self._check_online()
            self._parts.posting.join(
                checked_room(room),
                lambda: self._ctx.answer(ticket, None),
                lambda refusal: self._ctx.reject(ticket, refusal.as_refused()),
            )

        return self._act(now_ms, ask)

    def leave(self, room: str, ticket: int, now_ms: int) -> list[Command]:
        """End a membership."""

        def ask() -> None:
            self._check_online()
            self._parts.posting.leave(
                checked_room(room),
                lambda: self._ctx.answer(ticket, None),
                lambda refusal: self._ctx.reject(ticket, refusal.as_refused()),
            )

        return self._act(now_ms, ask)

    def who(self, room: str, ticket: int, now_ms: int) -> list[Command]:
        """Who is in a room; answered with its members."""

        def answered(answer: RelayMessage) -> None:
            self._ctx.answer(ticket, answer.members if isinstance(answer, Members) else ())

        def ask() -> None:
            self._check_online()
            self._ctx.request(
                lambda number: Who(number, checked_room(room)),
                answered,
                lambda refusal: self._ctx.reject(ticket, refusal.as_refused()),
                room,
            )

        return self._act(now_ms, ask)

    def list_rooms(self, ticket: int, now_ms: int) -> list[Command]:
        """All public rooms of the relay."""

        def answered(answer: RelayMessage) -> None:
            self._ctx.answer(ticket, answer.rooms if isinstance(answer, RoomList) else ())

        def ask() -> None:
            self._check_online()
            self._ctx.request(
                ListRooms,
                answered,
                lambda refusal: self._ctx.reject(ticket, refusal.as_refused()),
            )

        return self._act(now_ms, ask)
