"""Private messages on their way out: from the outbox, through sessions, to the relay.

In a conversation nothing is overtaken: items are encrypted in order, and each device's envelopes
are submitted one at a time, since a refused one must not be passed by its successor.
"""

from typing import Final

import msgspec

from saltline.client.contacts import CONTRADICTED, UNKNOWN, Contacts
from saltline.client.context import RETRY_MS, Context, Refusal
from saltline.client.devices import Devices, Peer
from saltline.client.model import Delivery, ExitCode, LineChanged, Refused
from saltline.client.vault.outbox import Item, PendingEnvelope
from saltline.crypto.bundles import BadBundle, Bundle, Prekey
from saltline.crypto.encoding import Malformed
from saltline.crypto.keylog import Account
from saltline.crypto.primitives import CryptoError
from saltline.crypto.session import Session
from saltline.crypto.signatures import Identity
from saltline.protocol.content import decode_content, decode_receipt, encode_content
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import RelayMessage
from saltline.protocol.to_client import Claimed
from saltline.protocol.to_relay import Claim, Submit

# Items of a conversation that are encrypted before their turn; what is not encrypted yet can still
# go to another key. More are made ready when half of them have left.
ENCRYPT_AHEAD: Final = 32
_WRONG_CLOCK: Final = Refusal(
    "wrong_clock",
    "This computer's clock and the relay's do not agree: keys cannot be judged. It waits for that.",
)
_UNKNOWN_DEVICE: Final = frozenset({ErrorCode.UNKNOWN_DEVICE, ErrorCode.UNKNOWN_USER})


class Outgoing:
    """What waits for people, and what each conversation waits for."""

    def __init__(self, context: Context, contacts: Contacts, devices: Devices) -> None:
        self._ctx = context
        self._contacts = contacts
        self._devices = devices
        self._waiting: set[str] = set()  # conversations with items
        self._stirred: set[str] = set()  # those that something happened to since the last turn
        self._encrypted_to: dict[str, int] = {}  # items up to this one are encrypted
        self._busy: set[str] = set()  # looked up right now
        self._claiming: set[Peer] = set()
        self._submitting: set[Peer] = set()
        self._not_before_ms: dict[str, int] = {}

    def link_lost(self) -> None:
        """Everything on its way will be done again."""
        self._busy.clear()
        self._claiming.clear()
        self._submitting.clear()
        self._not_before_ms.clear()
        self.stir()

    def forget_caches(self) -> None:
        """A turn was rolled back."""
        self._encrypted_to.clear()

    def load(self) -> None:
        """What an earlier run left."""
        self._waiting = {name for name in self._ctx.outbox.conversations() if name.startswith("@")}
        self.stir()

    def stir(self) -> None:
        """Look at every conversation again: something may have happened to any of them."""
        self._stirred |= self._waiting

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way or could leave now."""
        if self._busy or self._claiming or self._submitting:
            return True
        return any(not self._is_held(name) for name in self._waiting)

    def _is_held(self, conversation: str) -> bool:
        later = self._not_before_ms.get(conversation, 0) > self._ctx.now_ms
        person = self._contacts.person(conversation[1:])
        return later or person.changed or person.blocked

    def wait_for_turn(self, conversation: str) -> None:
        """It has something to send."""
        self._waiting.add(conversation)
        self._stirred.add(conversation)

    # --- moving on -------------------------------------------------------------------------------

    def pump(self) -> None:
        """Move on what was stirred, as far as it goes without an answer."""
        if not self._ctx.ready:
            return
        stirred, self._stirred = self._stirred, set()
        for conversation in sorted(stirred & self._waiting):
            if not self._is_held(conversation):
                self._move(conversation)

    def person_decided(self, username: str) -> None:
        """Trust changed: what was encrypted for a key that is gone cannot leave any more."""
        conversation = f"@{username}"
        self._not_before_ms.pop(conversation, None)
        self._stirred.add(conversation)
        account = self._contacts.account(username)
        for item in self._ctx.outbox.items(conversation):
            if item.encrypted and account is not None:
                self._drop_if_dead(item, account)

    def _drop_if_dead(self, item: Item, account: Account) -> None:
        live = {identity.hash for identity in account.live}
        if all(each in live for each in self._ctx.outbox.targets(item.item)):
            return
        self._fail(
            item, "It was encrypted for the old key. To send it to the new one: /retry", None
        )

    def _move(self, conversation: str) -> None:
        first = self._ctx.outbox.first(conversation)
        if first is None:
            self._waiting.discard(conversation)
            return
        username = conversation[1:]
        account = self._contacts.account(username)
        if account is None:
            self._look_up(conversation)
        elif account.closed:
            self._fail_all(conversation, f"{username}'s account was closed.", ExitCode.UNKNOWN_NAME)
        else:
            self._encrypt(conversation, account)
            for identity in account.live:
                self._submit_next((username, identity.device), conversation)
            self._check_dead_devices(conversation, account)

    def _check_dead_devices(self, conversation: str, account: Account) -> None:
        """An envelope for a device that was ended, while the account lives on, goes nowhere."""
        first = self._ctx.outbox.first(conversation)
        if first is not None and first.encrypted:
            live = {identity.hash for identity in account.live}
            if not any(each in live for each in self._ctx.outbox.targets(first.item)):
                self._drop_if_dead(first, account)

    def _look_up(self, conversation: str) -> None:
        if conversation in self._busy:
            return
        self._busy.add(conversation)
        username = conversation[1:]
        self._contacts.look_up(username, lambda result: self._looked_up(conversation, result))

    def _looked_up(self, conversation: str, result: Account | Refusal) -> None:
        self._busy.discard(conversation)
        self._stirred.add(conversation)
        username = conversation[1:]
        if isinstance(result, Account):
            self._note_if_held(conversation)
        elif result is UNKNOWN:
            sentence = f"There is no user {username} on this relay. Nothing was sent."
            self._fail_all(conversation, sentence, ExitCode.UNKNOWN_NAME)
        elif result is CONTRADICTED:
            self._contradicted(conversation)
        elif not result.lost:
            self._wait(conversation, result)

    def _contradicted(self, conversation: str) -> None:
        sentence = (
            f"Not sent: the relay answered with another key for {conversation[1:]}."
            " Nothing left this computer. Compare in person, then: /retry"
        )
        self.owe_receipts_again(conversation)
        self._fail_all(conversation, sentence, ExitCode.NOT_TRUSTED)

    def owe_receipts_again(self, conversation: str) -> None:
        """Its items are about to fail. Nobody sees a receipt that did, to send it again.

        It waits for the next login: the relay has just said that this one does not take it.
        """
        for content in self._ctx.outbox.receipts(conversation):
            receipt = decode_receipt(decode_content(content).body)
            for message_id in receipt.ids:
                self._ctx.timeline.owe_receipt(
                    conversation[1:], message_id, receipt.read, at_once=False
                )

    def _note_if_held(self, conversation: str) -> None:
        try:
            self._contacts.check_may_send(conversation[1:])
        except Refused as refused:
            self._mark_waiting(conversation, refused.sentence, refused.code)

    # --- sessions and envelopes ----------------------------------------------------------------

    def _encrypt(self, conversation: str, account: Account) -> None:
        outbox = self._ctx.outbox
        done = self._encrypted_to.get(conversation)
        if done is None:
            done = self._encrypted_to[conversation] = outbox.last_encrypted(conversation)
        ahead = outbox.count_to(conversation, done)
        if ahead > ENCRYPT_AHEAD // 2:
            return
        items = outbox.after(conversation, done, ENCRYPT_AHEAD - ahead)
        if not items:
            return
        sessions: list[Session] = []
        for identity in account.live:
            session = self._devices.sessions((identity.username, identity.device)).choose(
                self._ctx.now_ms
            )
            if session is None:
                self._claim(identity, conversation)
            elif session.peer == identity:
                sessions.append(session)
        if len(sessions) != len(account.live):
            return
        for item in items:
            sessions = self._encrypt_item(item, sessions)
        self._encrypted_to[conversation] = items[-1].item
        for session in sessions:
            self._devices.replace(session)

    def _encrypt_item(self, item: Item, sessions: list[Session]) -> list[Session]:
        content = item.content
        if item.row:
            numbered = msgspec.structs.replace(
                decode_content(content), seq=self._ctx.timeline.next_seq(item.conversation)
            )
            content = encode_content(numbered)
        advanced = []
        for session in sessions:
            session, envelope = session.encrypt(content, self._ctx.random)
            peer = session.peer
            self._ctx.outbox.add_envelope(
                item.item, peer.username, peer.device, peer.hash, envelope
            )
            advanced.append(session)
        self._ctx.outbox.set_encrypted(item.item)
        return advanced

    def _claim(self, identity: Identity, conversation: str) -> None:
        peer = (identity.username, identity.device)
        if peer in self._claiming:
            return
        self._claiming.add(peer)
        self._ctx.request(
            lambda number: Claim(number, *peer),
            lambda answer: self._claimed(identity, conversation, answer),
            lambda refusal: self._claim_refused(peer, conversation, refusal),
        )

    def _claimed(self, identity: Identity, conversation: str, answer: RelayMessage) -> None:
        peer = (identity.username, identity.device)
        self._claiming.discard(peer)
        self._stirred.add(conversation)
        ctx = self._ctx
        try:
            bundle = _read_bundle(answer)
            if bundle.identity != identity:
                raise BadBundle("another identity than the one in the key log")
            started_ms = self._devices.sessions(peer).next_started_ms(ctx.now_ms)
            session = Session.initiate(ctx.me, bundle, started_ms, ctx.now_ms, ctx.random)
        except (CryptoError, Malformed) as error:
            if isinstance(error, BadBundle) and not ctx.clock_agrees:
                self._wait(conversation, _WRONG_CLOCK)
                return
            ctx.alert(
                conversation,
                f"The relay answered with keys for {identity.username} that are not"
                f" {identity.username}'s, or are damaged. Nothing was sent to them.",
            )
            self._contradicted(conversation)
            return
        self._devices.add(session)

    def _claim_refused(self, peer: Peer, conversation: str, refusal: Refusal) -> None:
        self._claiming.discard(peer)
        if refusal.lost:
            return
        if refusal.code in _UNKNOWN_DEVICE:
            self._look_up_again(conversation)
        elif refusal.code == ErrorCode.NO_PREKEYS:
            sentence = f"{peer[0]} has published no keys yet; it leaves by itself when they have."
            self._wait(conversation, refusal, Refused(sentence, ExitCode.TIMED_OUT))
        else:
            self._wait(conversation, refusal)

    def _look_up_again(self, conversation: str) -> None:
        """The device is gone, says the relay. If its entries do not say so too, wait."""
        self._not_before_ms[conversation] = self._ctx.now_ms + RETRY_MS
        self._look_up(conversation)

    def _submit_next(self, peer: Peer, conversation: str) -> None:
        if peer in self._submitting or not self._ctx.ready:
            return
        pending = self._ctx.outbox.next_envelope(*peer)
        account = self._contacts.account(peer[0])
        if pending is None or account is None:
            return
        identity = account.live_device(peer[1])
        if identity is None or identity.hash != pending.identity_hash:
            return
        self._submitting.add(peer)
        self._ctx.request(
            lambda number: Submit(number, *peer, pending.envelope, b""),
            lambda _answer: self._submitted(peer, conversation, pending),
            lambda refusal: self._submit_refused(peer, conversation, pending, refusal),
        )

    def _submitted(self, peer: Peer, conversation: str, pending: PendingEnvelope) -> None:
        self._submitting.discard(peer)
        self._stirred.add(conversation)
        row = self._ctx.outbox.envelope_done(pending.envelope_id, pending.item)
        if row and self._ctx.timeline.set_delivery(row, Delivery.RELAYED):
            self._ctx.emit(LineChanged(conversation, row))

    def _submit_refused(
        self, peer: Peer, conversation: str, pending: PendingEnvelope, refusal: Refusal
    ) -> None:
        self._submitting.discard(peer)
        if refusal.lost:
            return
        self._stirred.add(conversation)
        if refusal.code in _UNKNOWN_DEVICE:
            self._look_up_again(conversation)
        elif refusal.code in (ErrorCode.ENVELOPE_TOO_LARGE, ErrorCode.BAD_MESSAGE):
            item = self._ctx.outbox.first(conversation)
            if item is not None and item.item == pending.item:
                self._fail(item, refusal.as_refused().sentence, ExitCode.USAGE)
        else:
            self._wait(conversation, refusal)

    # --- saying why ------------------------------------------------------------------------------

    def _wait(self, conversation: str, refusal: Refusal, why: Refused | None = None) -> None:
        """It stays queued and is tried again; its lines say why they wait."""
        self._not_before_ms[conversation] = self._ctx.now_ms + refusal.delay_ms
        why = why or refusal.as_refused()
        self._mark_waiting(conversation, why.sentence, why.code)

    def _mark_waiting(self, conversation: str, sentence: str, code: ExitCode) -> None:
        for row in self._ctx.outbox.say_why(conversation, sentence):
            self._ctx.emit(LineChanged(conversation, row, code))

    def _fail_all(self, conversation: str, sentence: str, code: ExitCode) -> None:
        for item in self._ctx.outbox.items(conversation):
            self._fail(item, sentence, code)
        self._waiting.discard(conversation)

    def _fail(self, item: Item, sentence: str, code: ExitCode | None) -> None:
        self._ctx.outbox.remove(item.item)
        if item.row and self._ctx.timeline.set_delivery(item.row, Delivery.FAILED, sentence):
            self._ctx.emit(LineChanged(item.conversation, item.row, code or ExitCode.NOT_TRUSTED))


def _read_bundle(answer: RelayMessage) -> Bundle:
    if not isinstance(answer, Claimed):
        raise BadBundle("not a bundle")
    one_time = Prekey.decode(answer.one_time_prekey) if answer.one_time_prekey else None
    return Bundle(
        identity=Identity.decode(answer.identity),
        identity_signature=answer.identity_signature,
        signed_prekey=Prekey.decode(answer.signed_prekey),
        kem_prekey=Prekey.decode(answer.kem_prekey),
        one_time_prekey=one_time,
    )
