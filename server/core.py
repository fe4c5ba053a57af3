"""The relay as pure decisions: events in, effects out. No sockets, threads, clock or disk.

The edge calls it under one lock: decisions in pure Python never overlap under the GIL, so that
sharding them would buy nothing. Each part of the core has a file: `entrance` (hello and
login), `registration`, `directory` (public keys), `mailboxes`, `rooms`, `presence`, `generations`,
`admin_core`; they share a `Switchboard`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from saltline.crypto.keylog import LogKey
from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.limits import MEMBER_LIST_MAX
from saltline.protocol.messages import ClientMessage, decode_client_message
from saltline.server.admin_core import AdminCore
from saltline.server.administration import AdminRequest
from saltline.server.directory import Directory
from saltline.server.effects import Effect
from saltline.server.entrance import Entrance
from saltline.server.generations import Generations
from saltline.server.limits import TokenBuckets, address_group
from saltline.server.mailboxes import Mailboxes
from saltline.server.peers import Connection, Device, Pausing
from saltline.server.presence import Presence
from saltline.server.registration import Registration
from saltline.server.rooms import Rooms
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.interface import Outcome, StoreError
from saltline.server.switchboard import Switchboard, Ticket

_HOUSEKEEPING_MS: Final = 60_000
_SILENCE_CHECK_MS: Final = 10_000

# So many refusals a second tell a user who sends too much. After them it is read again in the next
# second: refusing as fast as somebody sends would take the time of everybody else.
REFUSALS_PER_SECOND: Final = 256

_STOPPING = "The relay is stopping. Come back soon."

# What a room holds stays on the disk: long posts cost what many short ones do.
_POST_TOKEN_BYTES: Final = 1024
# An envelope stays only until it is fetched, but is as much to write.
_SUBMIT_TOKEN_BYTES: Final = 16 * 1024
# A list of members costs some 0.7 µs for each: by the default rate one account takes a hundredth of
# the relay's time, and by all that it has saved up a tenth of a second.
_WHO_TOKEN_MEMBERS: Final = 10


class RelayCore:
    """Everything that a relay decides. `random(n)` gives n random bytes.

    `now_ms` is in ms of a clock that nobody sets; it is the date, unless `set_date` says otherwise.
    """

    def __init__(
        self,
        settings: Settings,
        log_key: LogKey,
        certificate: CertificateStatement,
        random: Callable[[int], bytes],
    ) -> None:
        self._certificate = certificate
        self._desk = desk = Switchboard(settings, log_key, random)
        self._requests: TokenBuckets[int] = TokenBuckets(1, 1)
        self._presence = Presence(desk)
        self._generations = Generations(desk)
        self._rooms = Rooms(desk, self._presence)
        self._mailboxes = Mailboxes(desk, self._generations, self._requests)
        self._directory = Directory(desk)
        self._entrance = Entrance(desk, self._generations, self._mailboxes, self._rooms)
        self._registration = Registration(desk, self._entrance)
        self._admin = AdminCore(desk, self._entrance, self._mailboxes, self._rooms)
        desk.departures += [self._rooms.departed, self._mailboxes.departed]
        self._refusals: dict[int, int] = {}  # by connection, of a rate, since the last tick
        self._housekept_ms = 0
        self._listened_ms = 0
        self.settings_changed(settings)
        self._stranger_handlers: dict[type[ClientMessage], Callable[..., None]] = {
            to_relay.Hello: self._entrance.hello,
            to_relay.CheckInvite: self._registration.check_invite,
            to_relay.Register: self._registration.register,
            to_relay.Login: self._entrance.login,
        }
        # With what each costs, in tokens of the user's bucket.
        self._handlers: dict[type[ClientMessage], tuple[Callable[[Connection, Any], None], int]] = {
            to_relay.Submit: (self._mailboxes.submit, 1),
            to_relay.Acknowledge: (self._mailboxes.acknowledge, 0),  # limited by what was delivered
            to_relay.Post: (self._rooms.post, 1),
            to_relay.Ping: (self._ping, 1),
            to_relay.Claim: (self._directory.claim, 2),
            to_relay.History: (self._rooms.history, 5),
            to_relay.Lookup: (self._directory.lookup, 10),
            to_relay.Who: (self._rooms.who, 100),  # and more in a large room
            to_relay.ListRooms: (self._rooms.list_rooms, 100),
            to_relay.Join: (self._rooms.join, 20),  # it may open a room, which stays
            to_relay.Publish: (self._directory.publish, 400),  # 128 signatures to verify
        }

    # --- connections ---------------------------------------------------------------------------

    def opened(
        self,
        connection: int,
        address: str,
        now_ms: int,
        certificate: CertificateStatement | None = None,
    ) -> list[Effect]:
        """TLS is up with a new connection; its number is never used again.

        `certificate` is the one that its handshake began under, if that is not the newest.
        """
        desk = self._desk
        desk.begin(now_ms)
        group = address_group(address)
        stranger = Connection(connection, group, certificate or self._certificate, now_ms)
        desk.connections[connection] = stranger
        if desk.is_stopping:
            desk.dismiss(stranger, ErrorCode.STOPPING, _STOPPING)
            return desk.finish()
        settings = desk.settings
        in_the_way = desk.strangers.in_the_way(
            stranger, settings.unauthenticated_per_address, settings.unauthenticated_max
        )
        if in_the_way is not None:
            desk.dismiss(
                in_the_way,
                ErrorCode.TOO_MANY_CONNECTIONS,
                "Too many connections wait to log in; this one gave way to others.",
            )
        if stranger.is_open:
            desk.strangers.add(stranger)
        return desk.finish()

    def received(self, connection: int, bodies: Sequence[bytes], now_ms: int) -> list[Effect]:
        """Whole frames' bodies, in order."""
        desk = self._desk
        sender = desk.connections.get(connection)
        if sender is None:
            return []
        desk.begin(now_ms)
        sender.heard_ms = now_ms
        for body in bodies:
            if not sender.is_open:
                break
            desk.request_bytes = len(body)
            try:
                request = decode_client_message(body)
            except ProtocolError as error:
                desk.refuse(sender, 0, error)
                break
            try:
                if sender.device is None:
                    self._handle_stranger(sender, request, body)
                else:
                    self._handle(sender, sender.device, request)
            except Exception as error:
                desk.failed(sender, request, error)
        self._rooms.keep_texts()
        desk.request_bytes = 0
        desk.pause_if_too_much(sender)
        return desk.finish()

    def broken(self, connection: int, error: ProtocolError, now_ms: int) -> list[Effect]:
        """The frames of this connection cannot be read on."""
        desk = self._desk
        sender = desk.connections.get(connection)
        if sender is not None:
            desk.begin(now_ms)
            desk.dismiss(sender, error.code, error.detail)
        return desk.finish()

    def closed(self, connection: int, now_ms: int) -> list[Effect]:
        """The connection is gone."""
        desk = self._desk
        gone = desk.connections.get(connection)
        if gone is not None:
            desk.begin(now_ms)
            desk.forget(gone)
        return desk.finish()

    def congested(self, connection: int, is_congested: bool, now_ms: int) -> list[Effect]:
        """The connection's outgoing queue rose above OUTGOING_QUEUE_MAX_BYTES, or drained.

        Until it drains the core pushes no room entries to it; then it gets each room's newest, and
        catches up by number. The edge should read nothing from it meanwhile: answers would only
        pile up.
        """
        desk = self._desk
        slow = desk.connections.get(connection)
        if slow is not None and slow.device is not None and slow.is_congested != is_congested:
            desk.begin(now_ms)
            if is_congested:
                self._presence.congested(slow)
            else:
                self._presence.drained(slow)
        return desk.finish()

    def taking(self, connections: Sequence[int], now_ms: int) -> list[Effect]:
        """Nothing is read from these until they have taken what is queued, and they take it.

        Their pings wait unread: that they take anything is their sign of life.
        """
        for number in connections:
            slow = self._desk.connections.get(number)
            if slow is not None:
                slow.heard_ms = now_ms
        return []

    # --- requests ------------------------------------------------------------------------------

    def _handle_stranger(self, sender: Connection, request: ClientMessage, body: bytes) -> None:
        handler = self._stranger_handlers.get(type(request))
        if handler is None:
            raise ProtocolError(ErrorCode.TOO_EARLY, "Log in first.")
        if self._desk.is_stopping:
            raise ProtocolError(ErrorCode.STOPPING, _STOPPING)
        handler(sender, request, body)

    def _handle(self, sender: Connection, device: Device, request: ClientMessage) -> None:
        desk = self._desk
        self._admin.requests += 1
        if type(request) is not to_relay.Post:
            self._rooms.keep_texts()  # in the order in which they were asked
        handler, cost = self._handlers.get(type(request), _ONLY_FOR_STRANGERS)
        if cost:
            if desk.is_stopping:
                raise ProtocolError(ErrorCode.STOPPING, _STOPPING)
            if type(request) is to_relay.Post:
                cost += len(request.statement) // _POST_TOKEN_BYTES
            elif type(request) is to_relay.Submit:
                cost += len(request.envelope) // _SUBMIT_TOKEN_BYTES
            elif type(request) is to_relay.Who:
                listed = min(self._rooms.members(request.room), MEMBER_LIST_MAX)
                cost += listed // _WHO_TOKEN_MEMBERS
            wait_ms = self._requests.take(device.account.id, cost, desk.now_ms)
            if wait_ms:
                self._note_refusal(sender)
                raise ProtocolError(
                    ErrorCode.RATE_LIMITED, "Too many requests. This one was not done.", wait_ms
                )
        handler(sender, request)

    def _note_refusal(self, sender: Connection) -> None:
        number = sender.number
        self._refusals[number] = count = self._refusals.get(number, 0) + 1
        if count == REFUSALS_PER_SECOND:
            self._desk.pause(sender, Pausing.RATE)

    def _ping(self, sender: Connection, request: to_relay.Ping) -> None:
        self._desk.send(sender, to_client.Pong(request.id))

    def admin(self, ticket: int, request: AdminRequest, now_ms: int) -> list[Effect]:
        """A request of the relay's admin; sooner or later answered by one Answer(ticket, …)."""
        self._desk.begin(now_ms)
        self._desk.attempt(self._admin.handle, None, Ticket(ticket), request)
        return self._desk.finish()

    # --- the disk ------------------------------------------------------------------------------

    def stored(self, token: int, outcome: Outcome | StoreError, now_ms: int) -> list[Effect]:
        """The answer to one Persist."""
        return self.stored_all(((token, outcome),), now_ms)

    def stored_all(
        self, results: Sequence[tuple[int, Outcome | StoreError]], now_ms: int
    ) -> list[Effect]:
        """The answers to many, in order: what the storage thread hands over after a commit."""
        desk = self._desk
        desk.begin(now_ms)
        for token, outcome in results:
            desk.settle(token, outcome)
        self._rooms.push()
        desk.resume_paused()
        self._say_goodbye_when_done()
        return desk.finish()

    @property
    def logins(self) -> int:
        """How many strangers wait for the relay to let them in, or to refuse them."""
        return self._desk.strangers.served

    @property
    def idle(self) -> bool:
        """Whether no operation is outstanding."""
        return self._desk.is_idle

    # --- time ----------------------------------------------------------------------------------

    def set_date(self, date_ms: int, now_ms: int) -> None:
        """What the computer's clock shows, in Unix ms: it may have been set."""
        ahead_ms = date_ms - now_ms
        self._mailboxes.clock_jumped(ahead_ms - self._desk.ahead_ms, now_ms)
        self._desk.ahead_ms = ahead_ms

    def tick(self, now_ms: int) -> list[Effect]:
        """Once a second: deadlines, expiry, presence."""
        desk = self._desk
        desk.begin(now_ms)
        self._hear_the_refused()
        self._end_late_logins()
        if now_ms - self._listened_ms >= _SILENCE_CHECK_MS:
            self._listened_ms = now_ms
            self._end_silent()
        self._presence.tell()
        if not desk.is_stopping and not desk.has_failed:
            self._generations.write()
            if now_ms - self._housekept_ms >= _HOUSEKEEPING_MS:
                self._housekept_ms = now_ms
                self._mailboxes.expire()
                self._requests.prune(now_ms)
                self._registration.attempts.prune(now_ms)
        return desk.finish()

    def _hear_the_refused(self) -> None:
        refusals, self._refusals = self._refusals, {}
        for number in refusals:
            connection = self._desk.connections.get(number)
            if connection is not None:
                self._desk.resume(connection, Pausing.RATE)

    def _end_late_logins(self) -> None:
        desk = self._desk
        deadline_ms = desk.now_ms - int(desk.settings.login_deadline_s * 1000)
        while (oldest := desk.strangers.oldest()) is not None and oldest.opened_ms <= deadline_ms:
            desk.dismiss(oldest, ErrorCode.TOO_SLOW, "Nobody logged in on this connection in time.")

    def _end_silent(self) -> None:
        desk = self._desk
        deadline_ms = desk.now_ms - int(desk.settings.silence_max_s * 1000)
        silent = [
            connection
            for connection in desk.connections.values()
            if connection.heard_ms <= deadline_ms and not connection.pauses
        ]
        for connection in silent:
            desk.dismiss(connection, ErrorCode.TOO_SLOW, "Nothing came, not even a ping.")

    # --- changes -------------------------------------------------------------------------------

    def certificate_changed(self, certificate: CertificateStatement) -> None:
        """New connections get this one; each keeps the one that it began with."""
        self._certificate = certificate

    def settings_changed(self, settings: Settings) -> None:
        """From the next request on."""
        self._desk.settings = settings
        self._requests.per_second = settings.requests_per_second
        self._requests.burst = settings.requests_burst
        attempts = self._registration.attempts
        attempts.per_second = settings.registrations_per_minute_and_address / 60
        attempts.burst = settings.registrations_per_minute_and_address
        self._directory.claims.per_day = settings.claims_per_day_and_target
        self._directory.claims_in_all.per_day = settings.claims_per_day
        self._rooms.opened.per_day = settings.rooms_opened_per_day

    def stop(self, now_ms: int) -> list[Effect]:
        """Refuse new work with STOPPING.

        Once nothing is outstanding (`idle`), every connection is told so and closed.
        """
        desk = self._desk
        desk.begin(now_ms)
        if not desk.is_stopping:
            desk.is_stopping = True
            if not desk.has_failed:
                self._generations.write()
        self._say_goodbye_when_done()
        return desk.finish()

    def _say_goodbye_when_done(self) -> None:
        desk = self._desk
        if desk.is_stopping and desk.is_idle:
            for connection in tuple(desk.connections.values()):
                desk.dismiss(connection, ErrorCode.STOPPING, _STOPPING)


def _refuse_strangers_message(_sender: Connection, _request: object) -> None:
    raise ProtocolError(ErrorCode.BAD_MESSAGE, "This connection has logged in already.")


_ONLY_FOR_STRANGERS: Final = (_refuse_strangers_message, 0)
