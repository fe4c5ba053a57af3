"""What happens to a relay, as the edge tells its core: each is called under the core's lock."""

from collections.abc import Callable, Iterable, Sequence

from saltline.protocol.errors import ProtocolError
from saltline.server.administration import AdminRequest
from saltline.server.core import RelayCore
from saltline.server.effects import Effect
from saltline.server.settings import CertificateStatement
from saltline.server.store.interface import Outcome, StoreError

Event = Callable[[RelayCore, int], Iterable[Effect]]
"""Called with the core and the time (Unix ms)."""


def opened(connection: int, address: str, statement: CertificateStatement) -> Event:
    """A connection whose TLS handshake began under `statement`, perhaps before a reload."""
    return lambda core, now_ms: core.opened(connection, address, now_ms, statement)


def received(connection: int, bodies: Sequence[bytes]) -> Event:
    """Whole frames came."""
    return lambda core, now_ms: core.received(connection, bodies, now_ms)


def broken(connection: int, error: ProtocolError) -> Event:
    """Nothing can be read any more."""
    return lambda core, now_ms: core.broken(connection, error, now_ms)


def closed(connection: int) -> Event:
    """The connection is gone."""
    return lambda core, now_ms: core.closed(connection, now_ms)


def congested(connection: int, is_congested: bool) -> Event:
    """The output queue rose above its bound, or drained."""
    return lambda core, now_ms: core.congested(connection, is_congested, now_ms)


def taking(connections: Sequence[int]) -> Event:
    """These are slow to take what is queued for them, and take it."""
    return lambda core, now_ms: core.taking(connections, now_ms)


def stored(results: Sequence[tuple[int, Outcome | StoreError]]) -> Event:
    """The store has done these, in its order."""
    return lambda core, now_ms: core.stored_all(results, now_ms)


def asked(ticket: int, request: AdminRequest) -> Event:
    """The admin asks."""
    return lambda core, now_ms: core.admin(ticket, request, now_ms)


def ticked(core: RelayCore, now_ms: int) -> Iterable[Effect]:
    """Time went on."""
    return core.tick(now_ms)


def stopping(core: RelayCore, now_ms: int) -> Iterable[Effect]:
    """No new work is to be taken."""
    return core.stop(now_ms)
