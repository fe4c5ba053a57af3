"""Private messages coming in: opened, decrypted, stored and acknowledged in one transaction.

Cheapest check first, and nothing that did not authenticate changes any state
(docs/protocol.md §3). Whatever was delivered is acknowledged once it is dealt with.
"""

from typing import Final

from saltline.client.contacts import CONTRADICTED, UNKNOWN, Contacts
from saltline.client.context import SYSTEM, Context, Misbehaved, Refusal
from saltline.client.devices import Devices
from saltline.client.model import (
    ConversationChanged,
    Delivery,
    LineChanged,
    LineKind,
)
from saltline.client.vault.people import Person
from saltline.client.vault.timeline import NewLine
from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.encoding import Malformed
from saltline.crypto.envelope import Opened, open_envelope
from saltline.crypto.handshake import Setup
from saltline.crypto.keylog import Account
from saltline.crypto.primitives import CryptoError
from saltline.crypto.session import Consumed, Session
from saltline.crypto.signatures import Identity
from saltline.protocol.content import (
    BadContent,
    Content,
    Kind,
    decode_content,
    decode_receipt,
    decode_text,
)
from saltline.protocol.limits import ACKNOWLEDGE_MAX
from saltline.protocol.names import BadName, check_user
from saltline.protocol.to_client import Deliver
from saltline.protocol.to_relay import Acknowledge

CLOCK_TOLERANCE_MS: Final = 10 * 60_000
# Whoever can write to us can make us say that something did not open: once an hour is enough.
_SAY_AGAIN_MS: Final = 3_600_000
# Many times a relay's window: only one that does not keep to any sends more.
PARKED_MAX_BYTES: Final = 32 * 1024 * 1024

Parked = tuple[Deliver, Opened]


class Incoming:
    """Deliveries from the mailbox."""

    def __init__(self, context: Context, contacts: Contacts, devices: Devices) -> None:
        self._ctx = context
        self._contacts = contacts
        self._devices = devices
        self._parked: dict[str, list[Parked]] = {}
        self._parked_bytes = 0
        self._done: list[int] = []
        self._dropped = 0  # and not told of yet
        self._dropped_said_ms: int | None = None
        self._doubted_ms: dict[str, int] = {}  # never changed, only replaced
        self.begin()

    def link_lost(self) -> None:
        """What was not acknowledged will be delivered again."""
        self._parked.clear()
        self._parked_bytes = 0
        self._done.clear()

    def begin(self) -> None:
        """A turn begins."""
        self._before = (self._dropped, self._dropped_said_ms, self._doubted_ms)

    def forget_caches(self) -> None:
        """A turn was rolled back: what it had dealt with will be delivered again.

        And what it said was not said: else that would be acknowledged in silence.
        """
        self._done.clear()
        self._dropped, self._dropped_said_ms, self._doubted_ms = self._before

    @property
    def is_busy(self) -> bool:
        """Whether deliveries wait for their sender's entries."""
        return bool(self._parked)

    def flush(self) -> None:
        """Acknowledge what this turn has stored; sent only after the commit."""
        while self._done:
            numbers, self._done = (
                tuple(self._done[:ACKNOWLEDGE_MAX]),
                self._done[ACKNOWLEDGE_MAX:],
            )
            self._ctx.transmit(Acknowledge(numbers, b""))
        said_ms, now_ms = self._dropped_said_ms, self._ctx.now_ms
        if self._dropped and (said_ms is None or abs(now_ms - said_ms) >= _SAY_AGAIN_MS):
            self._dropped_said_ms = now_ms
            many = "A message" if self._dropped == 1 else f"{self._dropped} messages"
            self._ctx.alert(
                SYSTEM,
                f"{many} from the relay could not be opened and came to nothing: damaged, replayed,"
                " or from a key that is not its sender's. Nothing that you had was lost.",
            )
            self._dropped = 0

    def deliver(self, message: Deliver) -> None:
        """Deal with one envelope. Raises Misbehaved."""
        try:
            opened = open_envelope(self._ctx.me, message.envelope)
        except (CryptoError, Malformed):
            self._drop(message)
            return
        self._judge(message, opened, may_ask=True)

    def _judge(self, message: Deliver, opened: Opened, *, may_ask: bool) -> None:
        """`may_ask`: a sender who is not known may be looked up first."""
        if self._ctx.prekeys.was_seen(opened.digest):
            self._done.append(message.number)
            return
        session = self._devices.find(opened.session_id)
        if session is None:
            self._begin(message, opened, may_ask=may_ask)
        elif may_ask and session.peer.username in self._parked:
            self._park(session.peer.username, message, opened)  # nobody overtakes themselves
        else:
            self._decrypt(message, opened, session)

    def _drop(self, message: Deliver) -> None:
        self._dropped += 1
        self._done.append(message.number)

    # --- known sessions ------------------------------------------------------------------------

    def _decrypt(self, message: Deliver, opened: Opened, session: Session) -> None:
        account = self._contacts.account(session.peer.username)
        if account is not None and not account.is_live(session.peer):
            self._from_ended(message, opened, session.peer.username)
            return
        try:
            session, content = session.decrypt(
                opened, self._ctx.now_ms, expire=self._ctx.clock_agrees
            )
        except (CryptoError, Malformed) as error:
            self._not_decrypted(message, opened, session.peer.username, error)
            return
        self._devices.replace(session)
        self._take(message, opened, session.peer, content)

    def _from_ended(self, message: Deliver, opened: Opened, username: str) -> None:
        """The device of this session was ended: who writes with its keys now, nobody knows."""
        self._keep_failed(message, opened, username)
        if not self._contacts.person(username).blocked:
            self._ctx.alert(
                f"@{username}",
                f"A message came from a key of {username} that was ended. It is not shown: somebody"
                f" else may have that key. If you miss something, ask {username} to send it again.",
            )

    def _keep_failed(self, message: Deliver, opened: Opened, username: str) -> None:
        keys, now_ms = self._ctx.prekeys, self._ctx.now_ms
        keys.keep_failed(opened.digest, username, message.envelope, now_ms)
        keys.remember_seen(opened.digest, now_ms)
        self._done.append(message.number)

    def _not_decrypted(
        self, message: Deliver, opened: Opened, username: str, error: Exception
    ) -> None:
        """Somebody opened our box with a known session's id: keep it, and say so."""
        self._keep_failed(message, opened, username)
        if not self._contacts.person(username).blocked:
            why = (
                "it was sent before, or by an older copy of their profile"
                if isinstance(error, Consumed)
                else "it is damaged, forged, or its keys are gone"
            )
            self._ctx.alert(
                f"@{username}",
                f"A message from {username} could not be decrypted: {why}. If you miss something,"
                " ask them to send it again.",
            )

    # --- new sessions --------------------------------------------------------------------------

    def _begin(self, message: Deliver, opened: Opened, *, may_ask: bool) -> None:
        try:
            setup = opened.setup_info
        except (CryptoError, Malformed):
            setup = None
        if (
            setup is None
            or self._ctx.prekeys.was_accepted(opened.session_id)
            or not self._may_be_peer(setup.initiator)
        ):
            self._drop(message)
            return
        username = setup.initiator.username
        account = self._contacts.account(username)
        is_live = account is not None and account.is_live(setup.initiator)
        if may_ask and (username in self._parked or not is_live):
            self._park(username, message, opened)
        elif is_live:
            self._accept(message, opened, setup)
        else:
            self._drop(message)

    def _may_be_peer(self, identity: Identity) -> bool:
        try:
            check_user(identity.username)
        except BadName:
            return False
        mine = self._ctx.me.identity
        is_system = identity.username == SYSTEM[1:]
        is_me = identity.username == mine.username
        return identity.relay_id == mine.relay_id and not is_system and not is_me

    def _park(self, username: str, message: Deliver, opened: Opened) -> None:
        """Unacknowledged until the sender's entries are known."""
        self._parked_bytes += len(message.envelope)
        if self._parked_bytes > PARKED_MAX_BYTES:
            raise Misbehaved("The relay sent more than was acknowledged.")
        waiting = self._parked.setdefault(username, [])
        waiting.append((message, opened))
        if len(waiting) == 1:
            self._look_up(username)

    def _look_up(self, username: str) -> None:
        self._contacts.look_up(username, lambda result: self._looked_up(username, result))

    def _looked_up(self, username: str, result: Account | Refusal) -> None:
        """Only an answer about the sender decides; whoever was refused one asks again."""
        is_refused = isinstance(result, Refusal) and result not in (UNKNOWN, CONTRADICTED)
        if isinstance(result, Refusal) and is_refused:
            if not result.lost:
                self._ctx.later(result.delay_ms, lambda: self._look_up(username))
            return
        for message, opened in self._parked.pop(username, []):
            self._parked_bytes -= len(message.envelope)
            self._judge(message, opened, may_ask=False)

    def _accept(self, message: Deliver, opened: Opened, setup: Setup) -> None:
        ctx = self._ctx
        keys = ctx.prekeys
        signed = keys.prekey(PrekeyKind.SIGNED, setup.signed_prekey_id)
        kem = keys.prekey(PrekeyKind(setup.kem_kind), setup.kem_id)
        one_time = None
        if setup.one_time_prekey_id:
            one_time = keys.prekey(PrekeyKind.ONE_TIME, setup.one_time_prekey_id)
        username = setup.initiator.username
        if signed is None or kem is None or (setup.one_time_prekey_id and one_time is None):
            self._doubt(message, username)
            return
        try:
            session, content = Session.accept(ctx.me, opened, signed, kem, one_time, ctx.now_ms)
        except (CryptoError, Malformed):
            self._drop(message)
            return
        if setup.one_time_prekey_id:
            keys.delete_prekey(PrekeyKind.ONE_TIME, setup.one_time_prekey_id)
        if PrekeyKind(setup.kem_kind) is PrekeyKind.ONE_TIME_KEM:
            keys.delete_prekey(PrekeyKind.ONE_TIME_KEM, setup.kem_id)
        keys.remember_accepted(session.id, setup.signed_prekey_id)
        self._devices.add(session)
        self._take(message, opened, session.peer, content)

    def _doubt(self, message: Deliver, username: str) -> None:
        """Nothing is proved: anybody can write a public ID into a setup. Said once an hour."""
        person, now_ms = self._contacts.person(username), self._ctx.now_ms
        if not person.accepted:
            self._drop(message)
            return
        self._done.append(message.number)
        said_ms = self._doubted_ms.get(username)
        if person.blocked or (said_ms is not None and abs(now_ms - said_ms) < _SAY_AGAIN_MS):
            return
        self._doubted_ms = {**self._doubted_ms, username: now_ms}
        self._ctx.alert(
            f"@{username}",
            f"Somebody who claims to be {username} used keys of yours that are gone, so that it"
            f" could not be decrypted. If you miss something, ask {username} to send it again.",
        )

    # --- what was inside -----------------------------------------------------------------------

    def _take(self, message: Deliver, opened: Opened, peer: Identity, data: bytes) -> None:
        ctx = self._ctx
        ctx.prekeys.remember_seen(opened.digest, ctx.now_ms)
        self._done.append(message.number)
        username = peer.username
        is_blocked = self._contacts.person(username).blocked
        try:
            content = decode_content(data)
            if is_blocked:
                self._count(peer, content.seq)  # what we refuse to hear is no gap afterwards
                return
            if content.to != ctx.account.username:
                raise BadContent("it is addressed to somebody else")
            if content.kind == Kind.RECEIPT:
                self._take_receipt(username, content)
            else:
                self._take_message(peer, content)
        except BadContent as error:
            if is_blocked:
                return
            ctx.alert(
                f"@{username}",
                f"A message from {username} was dropped: {error}. It was encrypted and theirs.",
            )

    def _take_receipt(self, username: str, content: Content) -> None:
        receipt = decode_receipt(content.body)
        delivery = Delivery.READ if receipt.read else Delivery.DELIVERED
        conversation, me = f"@{username}", self._ctx.account.username
        for message_id in receipt.ids:
            row = self._ctx.timeline.find(conversation, me, message_id)
            if row is not None and self._ctx.timeline.set_delivery(row, delivery):
                self._ctx.emit(LineChanged(conversation, row))

    def _take_message(self, peer: Identity, content: Content) -> None:
        ctx, username = self._ctx, peer.username
        conversation = f"@{username}"
        is_text = content.kind == Kind.TEXT
        text = decode_text(content.body) if is_text else ""
        self._meet(username)
        self._note_gap(peer, content.seq)  # sent again, a message is counted again
        if ctx.timeline.find(conversation, username, content.id) is not None:
            return  # the first wins
        reason = ""
        if content.sent_ms > ctx.now_ms + CLOCK_TOLERANCE_MS:
            reason = "the sender's clock is ahead"
        ctx.add_line(
            NewLine(
                conversation,
                LineKind.TEXT if is_text else LineKind.UNSUPPORTED,
                username,
                text if is_text else "This message needs a newer version of saltline.",
                content.sent_ms,
                ctx.now_ms,
                content.id,
                reason=reason,
            )
        )
        if is_text:
            ctx.timeline.owe_receipt(username, content.id, read=False)

    def _meet(self, username: str) -> None:
        ctx = self._ctx
        if ctx.people.person(username) is None:
            ctx.people.save(Person(username))
            ctx.emit(ConversationChanged(f"@{username}"))

    def _note_gap(self, peer: Identity, seq: int) -> None:
        """Each device counts its messages in a conversation: what is missing shows."""
        if seq == 0:
            return
        keys = self._ctx.prekeys
        last = keys.peer_count(peer.username, peer.device)
        # A device that came with a reset never saw the beginning of what its contacts count.
        saw_the_beginning = last > 0 or self._ctx.me.identity.device == 1
        if saw_the_beginning and seq > last + 1:
            missing = seq - last - 1
            many = "1 message" if missing == 1 else f"{missing} messages"
            self._ctx.say(f"@{peer.username}", f"a gap of {many} from {peer.username}")
        self._count(peer, seq)

    def _count(self, peer: Identity, seq: int) -> None:
        keys = self._ctx.prekeys
        if seq > keys.peer_count(peer.username, peer.device):
            keys.set_peer_count(peer.username, peer.device, seq)
