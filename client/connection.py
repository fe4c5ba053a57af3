"""One connection's conversation with the relay: greeting, answers, pushes, pings."""

from typing import Final

from saltline.client.commands import Disconnect
from saltline.client.context import Refusal
from saltline.client.login import Greeting
from saltline.client.model import (
    CaughtUp,
    ConnectionChanged,
    ConnectionState,
    PresenceChanged,
    Refused,
)
from saltline.client.parts import Parts
from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.limits import PING_INTERVAL_S, PINGS_MISSED_MAX
from saltline.protocol.messages import RelayMessage, decode_relay_message
from saltline.protocol.names import LOBBY
from saltline.protocol.text import sanitise

_EXPIRE_EVERY_MS: Final = 3_600_000
# Errors of the whole connection after which coming back by itself would not help.
_FINAL_ERRORS: Final = frozenset(
    {
        ErrorCode.REPLACED,
        ErrorCode.REMOVED,
        ErrorCode.BAD_LOGIN,
        ErrorCode.UNSUPPORTED_VERSION,
    }
)
_ANSWERS: Final = (
    to_client.Invited,
    to_client.Published,
    to_client.LookedUp,
    to_client.Claimed,
    to_client.Submitted,
    to_client.Joined,
    to_client.Posted,
    to_client.HistoryPage,
    to_client.Members,
    to_client.RoomList,
    to_client.Pong,
)


class Connection:
    """What the relay says, handed to the parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ctx = parts.context
        self._greeting = Greeting(parts.context)
        self._greeting.on_refused = self.registration_refused
        self._registration: int | None = None  # the ticket that waits for it
        self._is_up = False
        self._ping_sent_ms = 0
        self._pings_open = 0
        self._expired_ms = 0
        self.caught_up = False
        self.round_trip_ms: int | None = None

    # --- begin and end -------------------------------------------------------------------------

    def begin(self, spki_hash: bytes) -> None:
        """TLS is up; the certificate's key has this SHA-256 (32 bytes)."""
        self.lost()
        self._is_up = True
        self._greeting.begin(spki_hash)

    def lost(self) -> None:
        """The link is gone."""
        self._is_up = self.caught_up = False
        self._pings_open = 0
        self.round_trip_ms = None
        self._parts.link_lost()

    def leave(self, sentence: str, *, retry: bool = True) -> None:
        """Close, and say why."""
        state = ConnectionState.OFFLINE if retry else ConnectionState.REFUSED
        self._ctx.commands.append(Disconnect(state, sentence, retry=retry))
        self._is_up = False

    def _garbage(self, what: str) -> None:
        """A relay that does not keep to the protocol: leave, and try again later."""
        self.leave(f"{what} The connection was closed; nothing was lost.")

    # --- what comes ----------------------------------------------------------------------------

    def receive(self, body: bytes) -> None:
        """One frame's body."""
        if not self._is_up:
            return
        try:
            message = decode_relay_message(body)
        except ProtocolError as error:
            self._garbage(error.detail)
            return
        if isinstance(message, to_client.Error):
            self._refused(message)
        elif isinstance(message, to_client.Challenge):
            self._challenged(message, body)
        elif isinstance(message, to_client.Welcome):
            self._welcome(message)
        elif isinstance(message, _ANSWERS):
            self._ctx.answered(message.id, message)
        elif self._ctx.ready:
            self._pushed(message)
        else:
            self._garbage("The relay spoke out of turn.")

    def _pushed(self, message: RelayMessage) -> None:
        if isinstance(message, to_client.Deliver):
            self._parts.incoming.deliver(message)
        elif isinstance(message, to_client.RoomEntry):
            self._parts.rooms.entry(message)
        elif isinstance(message, to_client.Presence):
            name = sanitise(message.username, newlines=False)
            self._ctx.emit(PresenceChanged(name, message.online))
        elif isinstance(message, to_client.CaughtUp):
            self.caught_up = True
            self._ctx.emit(CaughtUp())

    def _challenged(self, message: to_client.Challenge, body: bytes) -> None:
        if self._ctx.ready or not self._greeting.is_waiting:
            self._garbage("The relay spoke out of turn.")
            return
        problem = self._greeting.challenged(message, body)
        if problem:
            self.registration_ended(Refused(problem))
            self.leave(problem, retry=False)

    def _welcome(self, message: to_client.Welcome) -> None:
        if self._ctx.ready or not self._greeting.is_asking:
            self._garbage("The relay spoke out of turn.")
            return
        is_new = self._greeting.welcomed()
        self._ctx.ready = True
        self._ctx.emit(ConnectionChanged(ConnectionState.ONLINE))
        self._parts.publishing.welcomed(message)
        self._parts.rooms.welcomed(message.rooms)
        self._ping()
        if is_new:
            self._parts.posting.join(LOBBY, lambda: None, lambda refusal: None)
            self.registration_ended(None)

    def _refused(self, error: to_client.Error) -> None:
        refusal = Refusal(error.code, sanitise(error.detail, newlines=False), error.retry_after_ms)
        if error.id:
            self._ctx.refused(error.id, refusal)
        elif self._greeting.is_registering:
            if not self._greeting.try_login(refusal):
                self.registration_refused(self._greeting.reason(refusal))
        else:
            self.leave(refusal.detail, retry=error.code not in _FINAL_ERRORS)

    # --- registration --------------------------------------------------------------------------

    def expect_registration(self, ticket: int) -> None:
        """Answer this ticket when the account is registered, or refused."""
        self._registration = ticket

    def registration_refused(self, refused: Refused) -> None:
        """The relay will not have it: forget the keys that were made for it."""
        self._greeting.forget()
        self.registration_ended(refused)
        self.leave(refused.sentence, retry=False)

    def registration_ended(self, refused: Refused | None) -> None:
        """Tell whoever waits for it, if anybody does: done (None), or why not."""
        ticket, self._registration = self._registration, None
        if ticket is None:
            return
        if refused is None:
            self._ctx.answer(ticket, self._ctx.account.username)
        else:
            self._ctx.reject(ticket, refused)

    # --- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second."""
        now_ms = self._ctx.now_ms
        if now_ms - self._expired_ms >= _EXPIRE_EVERY_MS:
            self._expired_ms = now_ms
            self._ctx.prekeys.expire(now_ms)
        if not self._ctx.ready:
            return
        self._parts.publishing.tick()
        if now_ms - self._ping_sent_ms >= PING_INTERVAL_S * 1000:
            self._ping()
        if self._pings_open > PINGS_MISSED_MAX or self._ctx.overdue():
            self._garbage("The relay does not answer.")

    def _ping(self) -> None:
        sent_ms = self._ping_sent_ms = self._ctx.now_ms
        self._pings_open += 1

        def ponged(_answer: RelayMessage) -> None:
            self._pings_open = 0
            self.round_trip_ms = self._ctx.now_ms - sent_ms

        self._ctx.request(to_relay.Ping, ponged, lambda refusal: None)
