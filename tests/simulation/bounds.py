"""What the relay and its clients hold in memory stays inside the bounds of docs/protocol.md.

Looked at after every step, between two turns: whatever a turn gathers has left by then.
"""

from collections import Counter

from saltline.client.incoming import PARKED_MAX_BYTES
from saltline.client.rooms import HELD_BACK_MAX, HELD_BACK_MAX_BYTES
from saltline.protocol.limits import ENVELOPE_MAX_BYTES
from saltline.server.core import RelayCore
from saltline.server.peers import Pausing
from saltline.server.settings import Settings
from tests.simulation.client_machine import ClientMachine
from tests.simulation.laboratory import SCALED, require


def bound_relay(core: RelayCore, settings: Settings) -> None:
    """Of each connection: what waits for the disk, and what was pushed and not acknowledged."""
    desk = core._desk
    waiting: Counter[int] = Counter()
    for _, _, connection, _, _, size in desk._pending.values():
        if connection is not None:
            waiting[connection.number] += size
    require(desk._waiting_bytes == waiting.total(), "the relay counts what waits for its disk")
    for number, each in desk.connections.items():
        require(each.waiting_bytes == waiting[number], "a connection counts what waits of it")
        require(
            each.waiting_bytes <= settings.waiting_per_connection_bytes
            or Pausing.WORK in each.pauses,
            f"nothing more is read from who has {each.waiting_bytes} bytes waiting",
        )
    for delivery in core._mailboxes._deliveries.values():
        sizes = list(delivery.unacknowledged.values())
        require(sum(sizes) == delivery.window_bytes, "a window counts what it holds")
        require(
            len(sizes) <= settings.delivery_window_envelopes
            and sum(sizes) <= window_max_bytes(settings, sizes[-1] if sizes else 0),
            f"no more is pushed than the window holds: {len(sizes)} of {sum(sizes)} bytes",
        )
    rooms = core._rooms
    is_gathering = bool(rooms._texts or rooms._pushes._entries)
    require(not is_gathering, "posts and pushes leave with the turn that gathered them")


def window_max_bytes(settings: Settings, newest_bytes: int) -> int:
    """A window; one that is smaller than two of the largest envelopes may be passed by the newest.

    The relay reads on with half of it free, and an envelope is pushed as a whole.
    """
    window = settings.delivery_window_bytes
    return window if window >= 2 * ENVELOPE_MAX_BYTES else max(window, window // 2 + newest_bytes)


def bound_client(client: ClientMachine, settings: Settings) -> None:
    """What waits for keys of others; and no turn leaves an acknowledgement or frame behind."""
    assert client.core is not None
    parts = client.core._parts
    incoming, held = parts.incoming, parts.rooms._held.values()
    parked = [len(each[0].envelope) for some in incoming._parked.values() for each in some]
    require(sum(parked) == incoming._parked_bytes, f"{client.name} counts what is parked")
    require(
        len(parked) <= settings.delivery_window_envelopes and sum(parked) <= PARKED_MAX_BYTES,
        f"{client.name} parks no more than a window: {len(parked)}",
    )
    for each in held:
        size_bytes = sum(len(entry.statement) for entry in each.entries)
        require(
            len(each.entries) <= HELD_BACK_MAX and size_bytes <= HELD_BACK_MAX_BYTES,
            f"{client.name} holds back no more than a page of a room",
        )
    require(
        not incoming._done and not parts.context._frames,
        f"{client.name} acknowledges and sends with the turn that stored it",
    )


def bound_outbox(client: ClientMachine) -> None:
    """Of what waits for the relay, only so much is encrypted ahead for each conversation."""
    assert client.vault is not None
    (ahead,) = (value for _, name, value in SCALED if name == "ENCRYPT_AHEAD")
    row = client.vault.row(
        "SELECT max(count) FROM"
        " (SELECT count(*) AS count FROM outbox WHERE encrypted GROUP BY conversation)"
    )
    most = (row[0] if row else 0) or 0
    require(most <= ahead, f"{client.name} encrypts no more than {ahead} ahead: {most}")
