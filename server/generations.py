"""How far each device's vault has come, so that a restored profile notices (docs/protocol.md §5).

A generation is u64 g and an HMAC (32 bytes) that only the device can make and check. It changes
with every message, so that the disk gets it once a second: an older one merely notices less.
"""

from saltline.protocol.limits import GENERATION_BYTES
from saltline.server.peers import Device
from saltline.server.store import operations as ask
from saltline.server.store.interface import Done, StoreError
from saltline.server.switchboard import Switchboard

_NUMBER_BYTES = 8


class Generations:
    """The greatest that each device has shown."""

    def __init__(self, desk: Switchboard) -> None:
        self._desk = desk
        self._unwritten: dict[int, bytes] = {}  # by mailbox; also while it is being written
        self._is_writing = False

    def note(self, device: Device, generation: bytes) -> None:
        """Keep it if it is greater. b"" comes from a client that keeps none."""
        if (
            len(generation) == GENERATION_BYTES
            and generation[:_NUMBER_BYTES] > device.generation[:_NUMBER_BYTES]
        ):
            device.generation = self._unwritten[device.mailbox] = generation

    def greatest(self, mailbox: int, stored: bytes) -> bytes:
        """What a device that logs in is told."""
        return max(stored, self._unwritten.get(mailbox, b""))

    def forget(self, mailbox: int) -> None:
        """The device was ended."""
        self._unwritten.pop(mailbox, None)

    def write(self) -> None:
        """Bring what was noted to the disk."""
        if self._unwritten and not self._is_writing:
            self._is_writing = True
            work = ask.KeepGenerations(tuple(self._unwritten.items()))
            self._desk.persist(work, self._written, None, None, self._not_written)

    def _written(
        self, _connection: None, _request: None, work: ask.KeepGenerations, _done: Done
    ) -> None:
        self._is_writing = False
        for mailbox, generation in work.generations:
            if self._unwritten.get(mailbox) == generation:
                del self._unwritten[mailbox]
        if self._desk.is_stopping:
            self.write()  # what came meanwhile

    def _not_written(
        self, _connection: None, _request: None, _work: ask.KeepGenerations, _error: StoreError
    ) -> None:
        self._is_writing = False
