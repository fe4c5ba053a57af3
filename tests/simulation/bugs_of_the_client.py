"""Mistakes that a client could make, planted one at a time: the simulation has to notice each."""

import logging
from pathlib import Path
from typing import Any, Final

import apsw

from saltline.client import incoming, outgoing, rooms
from saltline.client.context import Context
from saltline.client.core import ClientCore
from saltline.client.devices import Devices
from saltline.client.vault import database
from saltline.client.vault.keys import KeyStore
from saltline.client.vault.outbox import OutboxStore
from saltline.client.vault.timeline import Timeline
from saltline.client.writing import Writing
from saltline.crypto import session
from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.primitives import box
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.to_relay import Submit
from tests.simulation.planting import Bug, Patches

ONE_TIME: Final = (PrekeyKind.ONE_TIME, PrekeyKind.ONE_TIME_KEM)


def vault_without_fsync(patches: Patches) -> None:
    connect = database._connect

    def connect_carelessly(path: Path, key: bytes, flags: int, vfs: str | None) -> apsw.Connection:
        opened = connect(path, key, flags, vfs)
        opened.pragma("synchronous", "normal")
        return opened

    patches.put(database, "_connect", connect_carelessly)


def shows_what_comes_again(patches: Patches) -> None:
    """No look at H(envelope)."""
    patches.put(KeyStore, "was_seen", lambda *_: False)


def loses_its_outbox_at_every_start(patches: Patches) -> None:
    patches.put(OutboxStore, "conversations", lambda _: [])


def commits_the_ratchet_a_turn_too_late(patches: Patches) -> None:
    def flush_later(self: Any) -> None:
        late, self.late = getattr(self, "late", {}), dict(self._dirty)
        for each in late.values():
            self._ctx.prekeys.save_session(each)
        self._dirty.clear()

    patches.put(Devices, "flush", flush_later)


def acknowledges_before_its_commit(patches: Patches) -> None:
    """The message itself is taken in a second later."""
    deliver = incoming.Incoming.deliver

    def acknowledge_first(self: Any, message: Any) -> None:
        self._done.append(message.number)
        self._ctx.later(0, lambda: deliver(self, message))

    patches.put(incoming.Incoming, "deliver", acknowledge_first)


def receipts_for_what_was_not_stored(patches: Patches) -> None:
    add_line = Context.add_line

    def forget_some(self: Any, line: Any) -> int:
        if not line.mine and line.conversation.startswith("@") and line.body.endswith("x"):
            return 0
        return add_line(self, line)

    patches.put(Context, "add_line", forget_some)


def says_read_for_stored(patches: Patches) -> None:
    due = Timeline.receipts_due

    def all_read(self: Any, limit: int) -> Any:
        return [(name, True, ids) for name, _, ids in due(self, limit)]

    patches.put(Timeline, "receipts_due", all_read)


def owes_no_receipt_after_a_crash(patches: Patches) -> None:
    """It queues receipts only in the turn in which it owes them."""
    queue = Writing.queue_receipts

    def queue_new(self: Any) -> None:
        if getattr(self._ctx.timeline, "owed_now", False):
            queue(self)
        self._ctx.timeline.owed_now = False

    owe = Timeline.owe_receipt

    def owe_now(self: Any, *args: Any, **more: Any) -> None:
        self.owed_now = True
        owe(self, *args, **more)

    patches.put(Timeline, "owe_receipt", owe_now)
    patches.put(Writing, "queue_receipts", queue_new)


def sends_many_at_once(patches: Patches) -> None:
    """It does not wait for the answer to the envelope before."""
    submit_next = outgoing.Outgoing._submit_next

    def submit_eagerly(self: Any, peer: Any, conversation: str) -> None:
        self._submitting.discard(peer)
        submit_next(self, peer, conversation)

    patches.put(outgoing.Outgoing, "_submit_next", submit_eagerly)


def waits_for_answers_of_a_lost_link(patches: Patches) -> None:
    """What was on its way counts as on its way for ever."""
    patches.put(Context, "fail_all", lambda self: self._pending.clear())
    patches.put(outgoing.Outgoing, "link_lost", lambda _: None)


def takes_any_refusal_for_an_answer(patches: Patches) -> None:
    def refused(self: Any, peer: Any, conversation: str, pending: Any, refusal: Any) -> None:
        self._submitted(peer, conversation, pending)

    patches.put(outgoing.Outgoing, "_submit_refused", refused)


def reuses_a_nonce(patches: Patches) -> None:
    """Always the same, whatever the key; and a crash brings the key back."""
    patches.put(session, "box", lambda key, nonce, text: box(key, bytes(24), text))


def skips_a_number(patches: Patches) -> None:
    """Its peers see gaps where nothing is missing."""
    next_seq = Timeline.next_seq

    def next_but_one(self: Any, conversation: str) -> int:
        return next_seq(self, conversation) + next_seq(self, conversation) // 4

    patches.put(Timeline, "next_seq", next_but_one)


def deletes_private_halves_when_published(patches: Patches) -> None:
    """Instead of when they were used."""
    published = KeyStore.set_published

    def publish_and_delete(self: Any, kind: PrekeyKind, number: int) -> None:
        published(self, kind, number)
        if kind in ONE_TIME:
            self.delete_prekey(kind, number)

    patches.put(KeyStore, "set_published", publish_and_delete)


def keeps_no_prekey_on_disk(patches: Patches) -> None:
    """The private halves of what it publishes live in memory alone."""
    store: dict[tuple[int, int, int], Any] = {}
    add = KeyStore.add_prekey

    def add_and_forget(self: Any, pair: Any, made_ms: int, delete_ms: int) -> None:
        add(self, pair, made_ms, delete_ms)
        store[id(self), int(pair.public.kind), pair.public.id] = pair

    def find_in_memory(self: Any, kind: PrekeyKind, number: int) -> Any:
        return store.get((id(self), int(kind), number))

    patches.put(KeyStore, "add_prekey", add_and_forget)
    patches.put(KeyStore, "prekey", find_in_memory)


def leaks_a_text_beside_its_envelope(patches: Patches) -> None:
    encrypt_item = outgoing.Outgoing._encrypt_item
    last: list[bytes] = []

    def encrypt_and_remember(self: Any, item: Any, sessions: Any) -> Any:
        at = item.content.find(b"canary")
        if at >= 0:
            last.append(item.content[at : at + 30])
        return encrypt_item(self, item, sessions)

    def submit(number: int, username: str, device: int, envelope: bytes, _: bytes) -> Submit:
        return Submit(number, username, device, envelope, last[-1] if last else b"")

    patches.put(outgoing.Outgoing, "_encrypt_item", encrypt_and_remember)
    patches.put(outgoing, "Submit", submit)


def logs_what_is_written(patches: Patches) -> None:
    send = ClientCore.send

    def send_and_tell(self: Any, username: str, text: str, now_ms: int) -> Any:
        logging.getLogger("saltline.client").debug("%s is sent %s", username, text)
        return send(self, username, text, now_ms)

    patches.put(ClientCore, "send", send_and_tell)


def forgets_half_a_frame(patches: Patches) -> None:
    """A frame that comes in two pieces loses the first."""
    feed = FrameDecoder.feed

    def feed_whole(self: Any, data: bytes) -> list[bytes]:
        bodies = feed(self, data)
        if self.unfinished_bytes > 3_000:
            self._buffer = bytearray()
        return bodies

    patches.put(FrameDecoder, "feed", feed_whole)


def skips_what_it_missed_of_a_room(patches: Patches) -> None:
    """No history is fetched for a jump in numbers."""
    patches.put(rooms.Rooms, "_fetch", lambda *_: None)


def encrypts_its_whole_outbox_at_once(patches: Patches) -> None:
    after = OutboxStore.after

    def all_after(self: Any, conversation: str, item: int, _limit: int) -> Any:
        return after(self, conversation, item, 1_000)

    patches.put(OutboxStore, "after", all_after)


CLIENT_BUGS: Final = tuple(
    Bug(plant)
    for plant in (
        vault_without_fsync,
        shows_what_comes_again,
        loses_its_outbox_at_every_start,
        commits_the_ratchet_a_turn_too_late,
        acknowledges_before_its_commit,
        receipts_for_what_was_not_stored,
        says_read_for_stored,
        owes_no_receipt_after_a_crash,
        sends_many_at_once,
        waits_for_answers_of_a_lost_link,
        takes_any_refusal_for_an_answer,
        reuses_a_nonce,
        skips_a_number,
        deletes_private_halves_when_published,
        keeps_no_prekey_on_disk,
        leaks_a_text_beside_its_envelope,
        logs_what_is_written,
        forgets_half_a_frame,
        skips_what_it_missed_of_a_room,
        encrypts_its_whole_outbox_at_once,
    )
)
