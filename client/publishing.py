"""Our prekeys: made, published, topped up, retired (docs/protocol.md §2)."""

from typing import Final

from saltline.client.context import Context, Refusal
from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.keys import PrekeyPair, generate_prekey
from saltline.protocol import limits
from saltline.protocol.messages import RelayMessage
from saltline.protocol.to_client import Published, Welcome
from saltline.protocol.to_relay import Publish

PUBLISH_AT_ONCE: Final = 60
# One-time keys whose private halves are held, of each kind: handed out and not yet used, or, by a
# relay that says that it has none, never. Beyond that the last resort serves.
HELD_MAX: Final = 1000
_DAY_MS: Final = 86_400_000
_KEPT_MS: Final = limits.PREKEY_KEPT_AFTER_SUCCESSOR_S * 1000
_LIFE_MS: Final = limits.SIGNED_PREKEY_LIFE_S * 1000
_LONG_LIVED: Final = (PrekeyKind.SIGNED, PrekeyKind.LAST_RESORT_KEM)


class Publishing:
    """Keeps the directory stocked with our prekeys."""

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self._publishing = False
        self._checked_ms = 0

    def link_lost(self) -> None:
        """What was not confirmed is published again."""
        self._publishing = False

    @property
    def is_busy(self) -> bool:
        """Whether an upload waits for its answer."""
        return self._publishing

    def welcomed(self, welcome: Welcome) -> None:
        """Bring the directory up to what it should hold."""
        self._checked_ms = self._ctx.now_ms
        self._repair(welcome)
        self._rotate()
        self._top_up(welcome.one_time_left, welcome.one_time_kem_left)
        self._publish()

    def tick(self) -> None:
        """Rotate while connected, too."""
        if self._ctx.ready and self._ctx.now_ms - self._checked_ms > 3_600_000:
            self._checked_ms = self._ctx.now_ms
            self._rotate()
            self._publish()

    def _repair(self, welcome: Welcome) -> None:
        """A relay that was restored may have lost our newest long-lived keys: send them again."""
        held = (welcome.signed_prekey_id, welcome.kem_prekey_id)
        for kind, number in zip(_LONG_LIVED, held, strict=True):
            newest = self._ctx.prekeys.newest(kind)
            if newest is not None and newest[0] != number:
                self._ctx.prekeys.set_unpublished(kind, newest[0])

    def _rotate(self) -> None:
        """A key from a clock that was ahead counts as old: nobody takes it."""
        for kind in _LONG_LIVED:
            newest = self._ctx.prekeys.newest(kind)
            age_ms = _LIFE_MS if newest is None else self._ctx.now_ms - newest[1]
            if not -_DAY_MS <= age_ms < _LIFE_MS:
                self._make(kind)

    def _top_up(self, one_time_left: int, one_time_kem_left: int) -> None:
        unpublished = self._ctx.prekeys.unpublished_counts(self._ctx.now_ms)
        for kind, left, full, low in (
            (
                PrekeyKind.ONE_TIME,
                one_time_left,
                limits.ONE_TIME_PREKEYS,
                limits.ONE_TIME_PREKEYS_REFILL_BELOW,
            ),
            (
                PrekeyKind.ONE_TIME_KEM,
                one_time_kem_left,
                limits.ONE_TIME_KEM_PREKEYS,
                limits.ONE_TIME_KEM_PREKEYS_REFILL_BELOW,
            ),
        ):
            left += unpublished.get(kind, 0)
            if left < low:
                space = HELD_MAX - self._ctx.prekeys.count(kind)
                for _ in range(min(full - left, space)):
                    self._make(kind)

    def _make(self, kind: PrekeyKind) -> None:
        ctx = self._ctx
        if not ctx.clock_agrees:
            return
        number = ctx.prekeys.next_prekey_id(kind)
        pair = generate_prekey(ctx.me, kind, number, ctx.now_ms, ctx.random)
        ctx.prekeys.add_prekey(pair, ctx.now_ms, pair.public.not_after_ms + _KEPT_MS)

    def _publish(self) -> None:
        """Send the next lot; the vault has the private halves before it leaves."""
        if self._publishing:
            return
        pairs = self._ctx.prekeys.unpublished(self._ctx.now_ms, PUBLISH_AT_ONCE)
        if not pairs:
            return
        self._publishing = True
        self._ctx.request(
            lambda number: Publish(number, tuple(pair.public.encode() for pair in pairs)),
            lambda answer: self._published(pairs, answer),
            self._refused,
        )

    def _published(self, pairs: list[PrekeyPair], answer: RelayMessage) -> None:
        assert isinstance(answer, Published)
        self._publishing = False
        keys = self._ctx.prekeys
        for pair in pairs:
            kind, number = pair.public.kind, pair.public.id
            keys.set_published(kind, number)
            if kind in _LONG_LIVED:
                keys.retire(kind, number, self._ctx.now_ms + _KEPT_MS)
        self._top_up(answer.one_time_left, answer.one_time_kem_left)
        self._publish()

    def _refused(self, refusal: Refusal) -> None:
        """Tried again at the next login; until then the relay hands out what it holds."""
        self._publishing = False
