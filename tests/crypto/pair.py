"""Two small devices and a relay that loses, delays, reorders and repeats: docs/protocol.md §3–§5.

A device here does what a client must: choose a session or start one, commit, only then send;
open, commit, only then acknowledge. Its disk holds bytes, and a crash goes back to them.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import pytest

from saltline.crypto import session as session_module
from saltline.crypto.bundles import DAY_MS, Bundle, Prekey, PrekeyKind
from saltline.crypto.envelope import Opened, open_envelope
from saltline.crypto.keys import IdentityKeys, generate_prekey
from saltline.crypto.primitives import CryptoError, box, sha256
from saltline.crypto.session import Session
from tests.crypto.device import DEDUPE_MS, PRIVATE_HALF_MS, Device

START_MS = 1_760_000_000_000
ROTATE_MS = 7 * DAY_MS
MAILBOX_MS = 30 * DAY_MS
SIGNED, ONE_TIME = PrekeyKind.SIGNED, PrekeyKind.ONE_TIME
LAST_RESORT, ONE_TIME_KEM = PrekeyKind.LAST_RESORT_KEM, PrekeyKind.ONE_TIME_KEM
RESYNC = b" resync "


class PrekeyGone(CryptoError):
    """A setup names a prekey from before a restore."""


@dataclass
class Sent:
    """What the sender committed: the only truth about an envelope."""

    content: bytes
    sent_ms: int
    shown: int = 0
    shown_ms: int = 0


class Pair:
    """Alice, Bob and the relay between them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.published: dict[str, dict[PrekeyKind, list[Prekey]]] = {}
        self.mailbox: dict[str, list[bytes]] = {"alice": [], "bob": []}
        self.sent: dict[bytes, Sent] = {}
        self.archive: dict[str, list[bytes]] = {"alice": [], "bob": []}
        self.box_keys: set[bytes] = set()
        self.count = 0
        draw = self.random.randbytes
        self.devices = {
            name: Device(name, IdentityKeys.generate(bytes(32), name, 1, draw))
            for name in ("alice", "bob")
        }
        self.devices["bob"].skew_ms = self.random.randint(-DAY_MS // 2, DAY_MS // 2)
        for device in self.devices.values():
            self.rotate(device)
            self.top_up(device, 2)

    def tick(self, ms: int = 1) -> None:
        self.now_ms += ms

    def clock(self, device: Device) -> int:
        return self.now_ms + device.skew_ms

    # Prekeys --------------------------------------------------------------------------------

    def make(self, device: Device, kind: PrekeyKind) -> Prekey:
        draw = self.random.randbytes
        pair = generate_prekey(device.keys, kind, device.next_id, self.clock(device), draw)
        device.prekeys[kind, device.next_id] = pair
        if kind.is_one_time:
            late_ms = pair.public.not_after_ms + PRIVATE_HALF_MS
            device.delete_at_ms[kind, device.next_id] = late_ms
        device.next_id += 1
        return pair.public

    def rotate(self, device: Device) -> None:
        for name in device.prekeys:
            if not name[0].is_one_time:
                device.delete_at_ms.setdefault(name, self.clock(device) + PRIVATE_HALF_MS)
        fresh = {kind: [self.make(device, kind)] for kind in (SIGNED, LAST_RESORT)}
        device.rotated_ms = self.clock(device)
        device.commit()  # private halves before the upload
        self.published.setdefault(device.name, {}).update(fresh)

    def top_up(self, device: Device, count: int) -> None:
        kinds = (ONE_TIME, ONE_TIME_KEM)
        fresh = {kind: [self.make(device, kind) for _ in range(count)] for kind in kinds}
        device.commit()
        for kind in kinds:
            self.published[device.name].setdefault(kind, []).extend(fresh[kind])

    def claim(self, device: Device) -> Bundle:
        shelf = self.published[device.name]
        for kind in (ONE_TIME, ONE_TIME_KEM):
            shelf[kind] = [each for each in shelf[kind] if each.not_after_ms > self.now_ms]
        one_time, kem = (
            shelf[kind].pop(0) if shelf[kind] else None for kind in (ONE_TIME, ONE_TIME_KEM)
        )
        return Bundle(
            device.keys.identity,
            device.keys.identity_signature,
            shelf[SIGNED][0],
            kem or shelf[LAST_RESORT][0],
            one_time,
        )

    # Sending --------------------------------------------------------------------------------

    def other(self, device: Device) -> Device:
        return self.devices["bob" if device.name == "alice" else "alice"]

    def send(
        self,
        device: Device,
        crash: str = "",
        failed: Sequence[bytes] | None = None,
        anew: bool = False,
    ) -> None:
        """Encrypt, commit; `crash` is "before" or "after" the commit. The socket comes later.

        With `failed` (sids, perhaps none) it is a resync: a new session that says what is live.
        """
        self.tick()
        self.count += 1
        content = b"%d" % self.count
        session = device.sessions.choose(self.clock(device))
        if session is None or anew or failed is not None:
            session = self.initiate(device)
        if failed is not None:
            device.abandon(failed, self.clock(device))
            live = [each.id for each in device.sessions.sessions if each.id not in failed]
            content += RESYNC + bytes([len(failed)]) + b"".join([*failed, *live])
        assert session == device.greatest(), "not the session to send on"
        with self.recording() as keys:
            session, envelope = session.encrypt(content, self.random.randbytes)
        device.sessions = device.sessions.replace(session)
        device.chosen_ms[session.id] = self.clock(device)
        device.outbox.append(envelope)
        if crash == "before":
            return device.restart()
        device.commit()
        assert len(keys) == 1 and not self.box_keys & set(keys), "a message key is used twice"
        self.box_keys.update(keys)
        self.sent[sha256(envelope)] = Sent(content, self.now_ms)
        if crash == "after":
            device.restart()

    def resync(self, device: Device, crash: str = "") -> None:
        """Give up the session in use, whatever is wrong with it."""
        session = device.sessions.choose(self.clock(device))
        self.send(device, crash, [session.id] if session else [])

    def restore(self, device: Device) -> None:
        """From a backup: sessions and prekeys are replaced, the relay's too; then a resync."""
        device.lose_state()
        self.published[device.name] = {}
        self.rotate(device)
        self.top_up(device, 1)
        self.send(device, failed=[])

    def initiate(self, device: Device) -> Session:
        now_ms = self.clock(device)
        started_ms = device.sessions.next_started_ms(now_ms)
        bundle, draw = self.claim(self.other(device)), self.random.randbytes
        session = Session.initiate(device.keys, bundle, started_ms, now_ms, draw)
        self.add(device, session)
        return session

    def add(self, device: Device, session: Session) -> None:
        device.sessions, dropped = device.sessions.add(session, self.clock(device))
        device.gone.update(dropped)
        device.chosen_ms.setdefault(session.id, self.clock(device))

    @contextmanager
    def recording(self) -> Iterator[list[bytes]]:
        """Collects the keys that boxes are made with."""
        keys: list[bytes] = []

        def recorded(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
            keys.append(key)
            return box(key, nonce, plaintext)

        with mock.patch.object(session_module, "box", recorded):
            yield keys

    def flush(self, device: Device, crash: bool = False) -> None:
        """Submit the outbox. After a crash before the relay's answer, the same bytes go again."""
        peer = self.other(device).name
        self.mailbox[peer] += device.outbox
        self.archive[peer] += device.outbox
        if not crash:
            device.outbox = []
            device.commit()

    # Receiving ------------------------------------------------------------------------------

    def deliver(self, device: Device, at: int, crash: str = "") -> None:
        """One envelope, from any place in the mailbox."""
        self.tick()
        envelope = self.mailbox[device.name][at]
        digest = sha256(envelope)
        if digest not in device.seen:
            content = self.read(device, envelope, self.sent[digest])
            if crash == "before":
                return device.restart()
            device.seen[digest] = self.clock(device)
            if content is not None:
                device.shown.append(content)
                self.sent[digest].shown += 1
                self.sent[digest].shown_ms = self.now_ms
            device.commit()
            if content is not None:
                self.check_forgotten(device, envelope)
            if crash == "after":
                return device.restart()
        self.mailbox[device.name].pop(at)  # acknowledged

    def read(self, device: Device, envelope: bytes, sent: Sent) -> bytes | None:
        """The content; None where the protocol allows that it does not open any more."""
        opened = open_envelope(device.keys, envelope)
        sid = opened.session_id
        is_late = self.now_ms - sent.sent_ms >= MAILBOX_MS
        is_repeat = sent.shown and self.now_ms - sent.shown_ms >= DEDUPE_MS
        known = device.sessions.get(sid)
        try:
            if known is None:
                content = self.accept(device, opened)
            else:
                session, content = known.decrypt(opened, self.clock(device))
                device.sessions = device.sessions.replace(session)
        except PrekeyGone:
            self.send(device, failed=[sid])
            return None
        except CryptoError:
            if is_repeat or (is_late and not sent.shown) or sid in device.gone:
                return None
            raise
        assert content == sent.content and not sent.shown, "shown twice"
        count, is_resync, lists = content.partition(RESYNC)
        device.heard[sid] = max(device.heard.get(sid, 0), int(count))
        if is_resync:
            self.obey(device, int(count), lists)
        return content

    def accept(self, device: Device, opened: Opened) -> bytes:
        info, sid = opened.setup_info, opened.session_id
        if info is None or sid in device.accepted:
            raise CryptoError("an unknown session without a setup, or one that was dropped")
        ids = (
            (SIGNED, info.signed_prekey_id),
            (info.kem_kind, info.kem_id),
            (ONE_TIME, info.one_time_prekey_id),
        )
        if any(name not in device.prekeys for name in ids[: 3 if info.one_time_prekey_id else 2]):
            old = info.signed_prekey_id < device.first_id
            raise PrekeyGone if old else CryptoError("a prekey is missing")
        signed, kem, one_time = (device.prekeys.get(name) for name in ids)
        assert signed and kem
        session, content = Session.accept(
            device.keys, opened, signed, kem, one_time, self.clock(device)
        )
        for name in ids:
            if name[0].is_one_time and name in device.prekeys:
                del device.prekeys[name], device.delete_at_ms[name]
        device.accepted[sid] = info.signed_prekey_id
        self.add(device, session)
        return content

    def check_forgotten(self, device: Device, envelope: bytes) -> None:
        """Whoever takes the disk now cannot open this envelope again."""
        opened = open_envelope(device.keys, envelope)
        if session := device.sessions.get(opened.session_id):
            with pytest.raises(CryptoError):
                session.decrypt(opened, self.clock(device))
        elif info := opened.setup_info:
            assert (ONE_TIME, info.one_time_prekey_id) not in device.prekeys
            assert (ONE_TIME_KEM, info.kem_id) not in device.prekeys

    def obey(self, device: Device, count: int, lists: bytes) -> None:
        """A resync: how many failed, their sids, then the live ones.

        One that comes late says nothing about sessions on which the peer has spoken since.
        """
        sids = [lists[at : at + 16] for at in range(1, len(lists), 16)]
        failed, live = sids[: lists[0]], sids[lists[0] :]
        unknown = [
            each.id
            for each in device.sessions.sessions
            if each.confirmed and each.id not in live and device.heard.get(each.id, 0) < count
        ]
        device.abandon([*failed, *unknown], self.clock(device))

    # Time and quiet -------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        """Both are online: what is queued leaves, what is too old goes, weekly keys are renewed."""
        for device in self.devices.values():
            self.flush(device)
        self.tick(ms)
        for device in self.devices.values():
            self.mailbox[device.name] = [
                each
                for each in self.mailbox[device.name]
                if self.now_ms - self.sent[sha256(each)].sent_ms < MAILBOX_MS
            ]
            device.prune(self.clock(device))
            device.commit()
            if self.clock(device) - device.rotated_ms >= ROTATE_MS:
                self.rotate(device)

    def settle(self) -> None:
        while any(self.mailbox.values()) or any(each.outbox for each in self.devices.values()):
            for device in self.devices.values():
                self.flush(device)
                while self.mailbox[device.name]:
                    self.deliver(device, 0)

    def converge(self) -> None:
        """After quiet delivery both send on one session, and what they send arrives."""
        self.settle()
        for _ in range(3):
            for device in self.devices.values():
                self.send(device)
            last = list(self.sent.values())[-2:]
            self.settle()
            for device, sent in zip(self.devices.values(), last, strict=True):
                if not sent.shown:  # no receipt, so again on a new session
                    self.send(device, anew=True)
            self.settle()
        chosen = [device.sessions.choose(self.clock(device)) for device in self.devices.values()]
        assert chosen[0] and chosen[1] and chosen[0].id == chosen[1].id, "they do not converge"
        assert all(sent.shown == 1 for sent in last), "what they send does not arrive"
