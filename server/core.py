"""The relay as pure decisions: events in, effects out. No sockets, threads, clock or disk.

The edge calls it under one lock: decisions in pure Python never overlap under the GIL, so that
sharding them would buy nothing.
"""

from collections.abc import Callable, Sequence

from saltline.crypto.keylog import LogKey
from saltline.protocol.errors import ProtocolError
from saltline.server.administration import AdminRequest
from saltline.server.effects import Effect
from saltline.server.settings import CertificateStatement, Settings
from saltline.server.store.interface import Outcome, StoreError


class RelayCore:
    """Everything that a relay decides. Times are Unix ms; `random(n)` gives n random bytes."""

    def __init__(
        self,
        settings: Settings,
        log_key: LogKey,
        certificate: CertificateStatement,
        random: Callable[[int], bytes],
    ) -> None:
        raise NotImplementedError

    def opened(self, connection: int, address: str, now_ms: int) -> list[Effect]:
        """TLS is up with a new connection; its number is never used again."""
        raise NotImplementedError

    def received(self, connection: int, bodies: Sequence[bytes], now_ms: int) -> list[Effect]:
        """Whole frames' bodies, in order."""
        raise NotImplementedError

    def broken(self, connection: int, error: ProtocolError, now_ms: int) -> list[Effect]:
        """The frames of this connection cannot be read on."""
        raise NotImplementedError

    def closed(self, connection: int, now_ms: int) -> list[Effect]:
        """The connection is gone."""
        raise NotImplementedError

    def congested(self, connection: int, is_congested: bool, now_ms: int) -> list[Effect]:
        """The connection's outgoing queue rose above OUTGOING_QUEUE_MAX_BYTES, or drained.

        Until it drains the core pushes no room entries and no presence to it. The edge should read
        nothing from it either: its answers would only pile up.
        """
        raise NotImplementedError

    def stored(self, token: int, outcome: Outcome | StoreError, now_ms: int) -> list[Effect]:
        """The answer to one Persist."""
        raise NotImplementedError

    def stored_all(
        self, results: Sequence[tuple[int, Outcome | StoreError]], now_ms: int
    ) -> list[Effect]:
        """The answers to many, in order: what the storage thread hands over after a commit."""
        raise NotImplementedError

    def tick(self, now_ms: int) -> list[Effect]:
        """Once a second: deadlines, expiry, presence."""
        raise NotImplementedError

    def certificate_changed(self, certificate: CertificateStatement) -> None:
        """New connections get this one; each keeps the one that it began with."""
        raise NotImplementedError

    def settings_changed(self, settings: Settings) -> None:
        """From the next request on."""
        raise NotImplementedError

    def stop(self, now_ms: int) -> list[Effect]:
        """Refuse new work with STOPPING.

        Once nothing is outstanding (`idle`), every connection is told so and closed.
        """
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether no operation is outstanding."""
        raise NotImplementedError

    def admin(self, ticket: int, request: AdminRequest, now_ms: int) -> list[Effect]:
        """A request of the relay's admin; sooner or later answered by one Answer(ticket, …)."""
        raise NotImplementedError
