"""Private messages: into a mailbox, and from there to its device (docs/protocol.md §6, Delivery).

What waits is pushed in order, a window at a time. A delivery is *live* once everything on the disk
has been pushed: from then on envelopes go from their sender's request to their recipient without
another read, until the window is full. The store's outcomes come in the order of its work, so that
no envelope falls between a read and the first live push.
"""

from typing import Final

from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode
from saltline.server.effects import WARNING
from saltline.server.generations import Generations
from saltline.server.limits import TokenBuckets
from saltline.server.peers import Connection
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.store.interface import StoreError
from saltline.server.switchboard import Switchboard, ignore

# Deleting writes, too: so many fit into what is kept free of a full disk (store/space.py), even if
# each lies in a page of its own and belongs to another mailbox.
_EXPIRED_AT_ONCE: Final = 128
_EXPIRED_AT_ONCE_BYTES: Final = 512 * 1024
# A clock that somebody set wrong would have deleted all mail before it is set right.
_HOUR_MS: Final = 3_600_000
_JUMP_MS: Final = _HOUR_MS
_NOTHING_EXPIRES_MS: Final = 24 * _HOUR_MS
# A computer that starts may have a wrong clock until its NTP has asked; and after a long absence of
# the relay people come before their mail goes.
_NOTHING_EXPIRES_AT_FIRST_MS: Final = _HOUR_MS


class Delivery:
    """What was pushed on a connection and is not yet acknowledged: number -> bytes."""

    __slots__ = ("has_caught_up", "is_live", "is_reading", "last", "unacknowledged", "window_bytes")

    def __init__(self) -> None:
        self.last = 0
        self.unacknowledged: dict[int, int] = {}
        self.window_bytes = 0
        self.is_live = False
        self.is_reading = False
        self.has_caught_up = False


class Mailboxes:
    """The part of the core that takes envelopes and hands them over."""

    def __init__(
        self, desk: Switchboard, generations: Generations, buckets: TokenBuckets[int]
    ) -> None:
        self._desk = desk
        self._generations = generations
        self._buckets = buckets
        self._deliveries: dict[int, Delivery] = {}  # by mailbox, of those connected
        self.delivered = 0
        self._expires_from_ms: int | None = None  # until the first look
        self._is_expiring = False

    # --- in ------------------------------------------------------------------------------------

    def submit(self, connection: Connection, request: to_relay.Submit) -> None:
        """Keep an envelope; nothing about its sender goes with it."""
        desk = self._desk
        settings = desk.settings
        self._generations.note(connection.known, request.generation)
        work = ask.StoreEnvelope(
            request.username,
            request.device,
            request.envelope,
            settings.mailbox_max_envelopes,
            settings.mailbox_max_bytes,
            desk.date_ms,
        )
        desk.persist(work, self._submitted, connection, request)

    def _submitted(
        self,
        connection: Connection,
        request: to_relay.Submit,
        work: ask.StoreEnvelope,
        stored: told.EnvelopeStored,
    ) -> None:
        self._desk.send(connection, to_client.Submitted(request.id))
        delivery = self._deliveries.get(stored.mailbox)
        if delivery is None or not delivery.is_live:
            return
        if self._has_room(delivery, len(work.envelope)):
            recipient = self._desk.mailboxes[stored.mailbox]
            self._push(recipient, delivery, stored.number, work.now_ms, work.envelope)
        else:
            delivery.is_live = False

    # --- out -----------------------------------------------------------------------------------

    def arrived(self, connection: Connection, has_mail: bool) -> None:
        """A device has logged in: push what waits."""
        delivery = self._deliveries[connection.known.mailbox] = Delivery()
        if has_mail:
            self._read_on(connection, delivery)
        else:
            self._caught_up(connection, delivery)

    def departed(self, connection: Connection) -> None:
        """Its connection is gone; what it did not acknowledge waits for the next."""
        device = connection.known
        if device.mailbox not in self._desk.mailboxes:
            self._deliveries.pop(device.mailbox, None)

    def acknowledge(self, connection: Connection, request: to_relay.Acknowledge) -> None:
        """Delete what was pushed and has arrived; it makes room for more."""
        device = connection.known
        if self._desk.is_stopping:
            return  # what it names is delivered again
        self._generations.note(device, request.generation)
        delivery = self._deliveries[device.mailbox]
        arrived: list[int] = []
        for number in request.numbers:
            size = delivery.unacknowledged.pop(number, None)
            if size is not None:
                delivery.window_bytes -= size
                arrived.append(number)
        if arrived:
            work = ask.DeleteEnvelopes(device.mailbox, tuple(arrived))
            self._desk.persist(work, ignore, connection, request, ignore)
            self._read_on(connection, delivery)
        useless = len(request.numbers) - len(arrived)
        if useless or not arrived:
            self._charge_useless(connection, useless)

    def _charge_useless(self, connection: Connection, useless: int) -> None:
        """Useful acknowledgements are bounded by what was delivered; others by the user's rate.

        After a reconnect some are useless and honest: what they name is pushed again.
        """
        cost = 1 + useless // 64
        if self._buckets.take(connection.known.account.id, cost, self._desk.now_ms):
            detail = "Too many acknowledgements of nothing came."
            self._desk.dismiss(connection, ErrorCode.RATE_LIMITED, detail)

    def _read_on(self, connection: Connection, delivery: Delivery) -> None:
        """Read the next from the disk once half of the window is free."""
        if delivery.is_live or delivery.is_reading:
            return
        settings = self._desk.settings
        free = settings.delivery_window_envelopes - len(delivery.unacknowledged)
        free_bytes = settings.delivery_window_bytes - delivery.window_bytes
        if (
            2 * free < settings.delivery_window_envelopes
            or 2 * free_bytes < settings.delivery_window_bytes
        ):
            return
        delivery.is_reading = True
        work = ask.ReadMailbox(connection.known.mailbox, delivery.last, free, free_bytes)
        self._desk.persist(work, self._read, connection, delivery, self._not_read)

    def _read(
        self,
        connection: Connection,
        delivery: Delivery,
        _work: ask.ReadMailbox,
        read: told.MailboxRead,
    ) -> None:
        if not connection.is_open:
            return
        delivery.is_reading = False
        for waiting in read.envelopes:
            self._push(connection, delivery, waiting.number, waiting.received_ms, waiting.envelope)
        if read.more:
            self._read_on(connection, delivery)
            return
        self._caught_up(connection, delivery)

    def _caught_up(self, connection: Connection, delivery: Delivery) -> None:
        delivery.is_live = True
        if not delivery.has_caught_up:
            delivery.has_caught_up = True
            self._desk.send(connection, to_client.CaughtUp(delivery.last))

    def _not_read(
        self, connection: Connection, _delivery: Delivery, _work: object, error: told.StoreError
    ) -> None:
        # Without its mailbox a connection is worth nothing; the next one begins at the start.
        self._desk.dismiss(connection, error.code, error.detail)

    def _has_room(self, delivery: Delivery, size: int) -> bool:
        settings = self._desk.settings
        return not delivery.unacknowledged or (
            len(delivery.unacknowledged) < settings.delivery_window_envelopes
            and delivery.window_bytes + size <= settings.delivery_window_bytes
        )

    def _push(
        self,
        connection: Connection,
        delivery: Delivery,
        number: int,
        received_ms: int,
        envelope: bytes,
    ) -> None:
        delivery.last = number
        delivery.unacknowledged[number] = len(envelope)
        delivery.window_bytes += len(envelope)
        self.delivered += 1
        self._desk.send(connection, to_client.Deliver(number, received_ms, envelope))

    # --- time ----------------------------------------------------------------------------------

    def clock_jumped(self, jump_ms: int, now_ms: int) -> None:
        """The date moved by so much: far ahead, and it may be wrong. Let nothing expire at once."""
        if jump_ms < _JUMP_MS:
            return
        self._expires_from_ms = now_ms + _NOTHING_EXPIRES_MS
        self._desk.log(
            WARNING,
            f"This computer's clock was set forward by {jump_ms / _HOUR_MS:,.0f} h. If that is"
            " wrong, set it right within a day: until then no waiting message expires.",
        )

    def expire(self) -> None:
        """Delete what nobody came for, or can come for any more."""
        now_ms = self._desk.now_ms
        if self._expires_from_ms is None:
            self._expires_from_ms = now_ms + _NOTHING_EXPIRES_AT_FIRST_MS
        if self._is_expiring or self._desk.is_stopping:
            return
        before_ms = self._desk.date_ms - self._desk.settings.envelope_kept_s * 1000
        if now_ms < self._expires_from_ms:
            before_ms = 0  # nothing is as old; but the store truncates its log with this
        work = ask.ExpireEnvelopes(before_ms, _EXPIRED_AT_ONCE, _EXPIRED_AT_ONCE_BYTES)
        self._desk.persist(work, self._expired, None, None, self._not_expired)
        self._is_expiring = True

    def _expired(
        self,
        _connection: None,
        _request: None,
        _work: ask.ExpireEnvelopes,
        gone: told.Expired,
    ) -> None:
        self._is_expiring = False
        if gone.count:
            self.expire()

    def _not_expired(
        self, _connection: None, _request: None, _work: ask.ExpireEnvelopes, _error: StoreError
    ) -> None:
        self._is_expiring = False  # the next minute's tick tries again
