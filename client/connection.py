"""One connection's conversation with the relay: greeting, answers, pushes, pings."""

from collections.abc import Sequence
from typing import Final

from saltline.client.commands import Disconnect
from saltline.client.context import LINK_LOST, SYSTEM, Misbehaved, Refusal
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
from saltline.protocol.limits import (
    LOGIN_DEADLINE_S,
    PING_INTERVAL_S,
    PINGS_MISSED_MAX,
    REQUEST_TIMEOUT_S,
)
from saltline.protocol.messages import RelayMessage, decode_relay_message
from saltline.protocol.names import LOBBY
from saltline.protocol.text import sanitise

_EXPIRE_EVERY_MS: Final = 3_600_000
_CLOCK_TOLERANCE_MS: Final = 86_400_000
# More than this between two ticks: the clock was set, or the computer slept. Every deadline of this
# connection is void then.
_JUMP_MS: Final = 300_000
# An answer may be queued behind a window of envelopes or a busy room's entries. Where they take
# longer, the next connection goes on where this one ended.
_QUEUED_MAX_MS: Final = 300_000
_LOBBY_WANTED: Final = "join-lobby"
# Errors of the whole connection after which coming back by itself would not help.
_FINAL_ERRORS: Final = frozenset(
    {
        ErrorCode.REPLACED,
        ErrorCode.REMOVED,
        ErrorCode.BAD_LOGIN,
        ErrorCode.UNSUPPORTED_VERSION,
    }
)
# Errors of a registration after which the keys that were made for it are of no use.
_NOT_THIS_ACCOUNT: Final = frozenset(
    {
        ErrorCode.BAD_NAME,
        ErrorCode.NAME_TAKEN,
        ErrorCode.INVITE_NEEDED,
        ErrorCode.BAD_INVITE,
        ErrorCode.BAD_ENTRY,
        ErrorCode.BAD_LOGIN,
        ErrorCode.REMOVED,
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
        self._failed = ""  # the vault failed in a turn of the person's: what it said
        self._begun_ms = 0
        self._ticked_ms = 0
        self._ping_sent_ms = 0
        self._pings_open = 0
        self._flowed_ms = 0  # when something came behind which an answer may wait
        self._expired_ms = 0
        self._clock_said = False
        self.caught_up = False
        self.round_trip_ms: int | None = None

    # --- begin and end -------------------------------------------------------------------------

    def begin(self, spki_hash: bytes) -> None:
        """TLS is up; the certificate's key has this SHA-256 (32 bytes)."""
        self.lost()
        self._is_up = True
        self._begun_ms = self._ticked_ms = self._ctx.now_ms
        self._flowed_ms = 0
        self._greeting.begin(spki_hash)

    def lost(self) -> None:
        """The link is gone."""
        self._is_up = self.caught_up = False
        self._failed = ""
        self._pings_open = 0
        self._ctx.clock_agrees = False
        self.round_trip_ms = None
        self._parts.link_lost()

    def leave(self, sentence: str, *, retry: bool = True) -> None:
        """Close, and say why."""
        state = ConnectionState.OFFLINE if retry else ConnectionState.REFUSED
        self._ctx.commands.append(Disconnect(state, sentence, retry=retry))
        self._is_up = False

    def vault_failed(self, sentence: str) -> None:
        """What was on its way is forgotten: this connection cannot go on."""
        self._clock_said = False  # perhaps in the turn that failed
        if self._is_up:
            self._failed = sentence

    def _garbage(self, what: str) -> None:
        """A relay that does not keep to the protocol: leave, and try again later."""
        self.leave(f"{what} The connection was closed; nothing was lost.")

    # --- what comes ----------------------------------------------------------------------------

    def receive(self, bodies: Sequence[bytes]) -> None:
        """Frames' bodies, in order; none: a part of one has come."""
        self._pings_open = 0  # whatever comes is a sign of life
        if not bodies:
            self._flowed_ms = self._ctx.now_ms
        for body in bodies:
            self._receive(body)

    def _receive(self, body: bytes) -> None:
        if self._failed:
            self.leave(self._failed)
        if not self._is_up:
            return
        try:
            self._dispatch(decode_relay_message(body), body)
        except ProtocolError as error:
            self._garbage(error.detail)
        except Misbehaved as error:
            self._garbage(str(error))

    def _dispatch(self, message: RelayMessage, body: bytes) -> None:
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
        self._flowed_ms = self._ctx.now_ms
        if isinstance(message, to_client.Deliver):
            self._parts.incoming.deliver(message)
        elif isinstance(message, to_client.Entries):
            for entry in message.each():
                self._parts.rooms.entry(entry)
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
        problem, may_pass = self._greeting.challenged(message, body)
        if problem:
            self.registration_ended(Refused(problem))
            self.leave(problem, retry=may_pass)

    def _welcome(self, message: to_client.Welcome) -> None:
        if self._ctx.ready or not self._greeting.is_asking:
            self._garbage("The relay spoke out of turn.")
            return
        is_new = self._greeting.welcomed()
        self._ctx.vault.set_meta("ended", 0)
        self._ctx.ready = True
        self._ctx.timeline.may_owe_receipts = True  # those that the last connection took back
        self._ctx.emit(ConnectionChanged(ConnectionState.ONLINE))
        self._compare_clocks(message.time_ms)
        if is_new:
            self._ctx.vault.set_meta(_LOBBY_WANTED, 1)
            self.registration_ended(None)
        self._parts.rooms.welcomed(message.rooms)
        self._parts.publishing.welcomed(message)
        self._ping()
        if self._ctx.vault.meta(_LOBBY_WANTED):
            self._join_lobby()

    def _join_lobby(self) -> None:
        """Wanted until the relay has answered, whatever crashes in between."""

        def answered() -> None:
            self._ctx.vault.set_meta(_LOBBY_WANTED, 0)

        def refused(refusal: Refusal) -> None:
            if not refusal.lost:
                self._ctx.later(refusal.delay_ms, self._join_lobby)

        self._parts.posting.join(LOBBY, answered, refused)

    def _compare_clocks(self, relay_ms: int) -> None:
        apart_ms = abs(relay_ms - self._ctx.now_ms)
        self._ctx.clock_agrees = apart_ms <= _CLOCK_TOLERANCE_MS
        if not self._ctx.clock_agrees and not self._clock_said:
            self._ctx.say(
                SYSTEM,
                f"This computer's clock and the relay's are {apart_ms // _CLOCK_TOLERANCE_MS} days"
                " apart. Until they agree no keys are renewed, and others may be unable to write to"
                " you first. Set the clock; if it is right, tell the relay's admin.",
            )
        self._clock_said = not self._ctx.clock_agrees

    @property
    def _is_proven(self) -> bool:
        """Whether the other end has shown, with the log key, that it is this profile's relay."""
        return self._ctx.ready or self._greeting.is_asking

    def _refused(self, error: to_client.Error) -> None:
        refusal = Refusal(error.code, sanitise(error.detail, newlines=False), error.retry_after_ms)
        if error.id:
            self._ctx.refused(error.id, refusal)
        elif not self._greeting.is_registering:
            if error.code == ErrorCode.REMOVED and self._is_proven:
                self._parts.end()
            # Whoever registers is told at once, and not registered behind their back later.
            may_pass = self._registration is None and error.code not in _FINAL_ERRORS
            self.registration_ended(refusal.as_refused())
            self.leave(refusal.detail, retry=may_pass)
        elif self._greeting.try_login(refusal):
            pass
        elif error.code in _NOT_THIS_ACCOUNT:
            self.registration_refused(self._greeting.reason(refusal))
        else:
            # Not done, or done and not said: the same keys are tried again.
            self.registration_ended(refusal.as_refused())
            self.leave(refusal.detail, retry=False)

    # --- registration --------------------------------------------------------------------------

    def expect_registration(self, ticket: int) -> None:
        """Answer this ticket when the account is registered, or refused.

        A connection that is up was greeted for another attempt: its answer would be mistaken.
        """
        self.registration_ended(LINK_LOST.as_refused())
        if self._is_up:
            self.leave("Connecting again, to register.")
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
        since_ms, self._ticked_ms = now_ms - self._ticked_ms, now_ms
        if not self._is_up:
            return
        if self._failed:
            self.leave(self._failed)
        elif abs(since_ms) > _JUMP_MS:
            self.leave("The clock jumped, or this computer slept. Connecting again.")
        elif self._ctx.ready:
            self._serve()
        elif now_ms - self._begun_ms >= LOGIN_DEADLINE_S * 1000:
            self._garbage("The relay does not answer.")

    def _serve(self) -> None:
        now_ms = self._ctx.now_ms
        if self._ctx.clock_agrees and abs(now_ms - self._expired_ms) >= _EXPIRE_EVERY_MS:
            self._expired_ms = now_ms
            self._ctx.prekeys.expire(now_ms)
        self._ctx.do_what_is_due()
        self._parts.outgoing.stir()
        self._parts.publishing.tick()
        if now_ms - self._ping_sent_ms >= PING_INTERVAL_S * 1000:
            self._ping()
        flows = now_ms - self._flowed_ms < REQUEST_TIMEOUT_S * 1000
        is_overdue = self._ctx.overdue(_QUEUED_MAX_MS if flows else 0)
        if self._pings_open > PINGS_MISSED_MAX or is_overdue:
            self._garbage("The relay does not answer.")

    def _ping(self) -> None:
        sent_ms = self._ping_sent_ms = self._ctx.now_ms
        self._pings_open += 1

        def ponged(_answer: RelayMessage) -> None:
            self.round_trip_ms = max(0, self._ctx.now_ms - sent_ms)

        def refused(_refusal: Refusal) -> None:
            """That it came is enough."""

        self._ctx.request(to_relay.Ping, ponged, refused)
