"""Reads a disk image of the relay as an admin would after a crash: is what was promised there?"""

from hashlib import sha256

import apsw

from saltline.crypto.keylog import LogKey
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.store.schema import NUMBER_BITS
from saltline.server.store.sqlite import SqliteStore
from tests.simulation.laboratory import require
from tests.simulation.relay_machine import DATABASE, RelayMachine
from tests.simulation.wiretap import CANARY, Promise, Wiretap
from tests.volatile_disk import VolatileDisk


class Auditor:
    """Compares images with what the wiretap heard, and each with the ones before."""

    def __init__(self, log_key: LogKey, wiretap: Wiretap, names: tuple[str, ...]) -> None:
        self._log_key = log_key
        self._wiretap = wiretap
        self._names = names
        self._disk = VolatileDisk()
        self.logs: dict[str, tuple[bytes, ...]] = {}
        self.ended: set[str] = set()  # accounts whose mailbox went with a device
        self.count = 0
        self.looked_up = 0  # acknowledgements, in the step in which they were said

    def forget(self) -> None:
        """The last image was audited."""
        self._disk.forget()

    def look_up_fresh(self, relay: RelayMachine) -> None:
        """Whatever the relay acknowledged in this step would survive a power cut now.

        Where the platters have every byte that programs read, the relay's own database is as good
        as a copy of them, and quicker; where it does not say so, the whole copy is audited.
        """
        fresh, self._wiretap.fresh = self._wiretap.fresh, []
        if not fresh:
            return
        self.looked_up += len(fresh)
        if relay.store is not None and not relay.disk.is_down and relay.disk.is_synced:
            database = relay.store._database
            if not database.in_transaction and all(_has(database, each) for each in fresh):
                return
        self.audit(relay.disk.least(), "on the platters when it is acknowledged")

    def audit(self, image: dict[str, bytes], where: str) -> None:
        """Everything that was promised up to now, in this image."""
        self.count += 1
        for content in image.values():
            require(CANARY not in content, f"no private text lies {where}")
        self._disk.put(image)
        store = SqliteStore(self._disk.path(DATABASE), self._log_key.relay_id, vfs=self._disk.vfs)
        try:
            self._audit_accounts(store, where)
            self._audit_rooms(store, where)
        finally:
            store.close()

    def _audit_accounts(self, store: SqliteStore, where: str) -> None:
        held: dict[str, set[bytes]] = {}
        (users,) = store.run([ask.ReadUsers()])
        assert isinstance(users, told.UsersRead)
        found = {user.username: user for user in users.users}
        for name in self._names:
            require(
                name in found or name not in self._wiretap.accounts, f"{name}'s account is {where}"
            )
            if name not in found or name in self.ended:
                continue
            envelopes = self._mailbox(store, name)
            held[name] = {sha256(each.envelope).digest() for each in envelopes}
            counted = (found[name].waiting, found[name].waiting_bytes)
            sizes = [len(each.envelope) for each in envelopes]
            require(
                counted == (len(sizes), sum(sizes)),
                f"{name}'s mailbox counts what it holds: {counted}, and {len(sizes)}",
            )
            self._audit_log(store, name, where)
        for digest, name in self._wiretap.taken.items():
            if digest not in self._wiretap.handed and name not in self.ended:
                require(
                    digest in held.get(name, set()),
                    f"an envelope for {name} that the relay acknowledged is {where}",
                )

    def _mailbox(self, store: SqliteStore, name: str) -> tuple[told.StoredEnvelope, ...]:
        (device,) = store.run([ask.FindDevice(name, 1)])
        assert isinstance(device, told.DeviceFound)
        (read,) = store.run([ask.ReadMailbox(device.mailbox, 0, 10**6, 10**9)])
        assert isinstance(read, told.MailboxRead)
        return read.envelopes

    def _audit_log(self, store: SqliteStore, name: str, where: str) -> None:
        (entries,) = store.run([ask.FindAccount(name)])
        assert isinstance(entries, told.AccountFound)
        before = self.logs.get(name, ())
        require(
            entries.entries[: len(before)] == before, f"the key log of {name} only grows {where}"
        )
        self.logs[name] = entries.entries

    def _audit_rooms(self, store: SqliteStore, where: str) -> None:
        (rooms,) = store.run([ask.ReadRooms(1000)])
        assert isinstance(rooms, told.RoomsRead)
        lasts = {room.room: room.last for room in rooms.rooms}
        for room, number in self._wiretap.posts:
            require(
                lasts.get(room, 0) >= number,
                f"entry {number} of {room}, which the relay acknowledged, is {where}",
            )


def _has(database: apsw.Connection, promise: Promise) -> bool:
    if promise.envelope:
        query, values = "SELECT 1 FROM envelope WHERE envelope = ?", (promise.envelope,)
        return database.execute(query, values).get is not None
    if promise.account:
        query, name = "SELECT 1 FROM account WHERE username = ?", promise.account
        return database.execute(query, (name,)).get is not None
    room, number = promise.entry
    query = f"SELECT 1 FROM room JOIN entry ON slot = (room.id << {NUMBER_BITS} | ?) WHERE name = ?"
    return database.execute(query, (number, room)).get is not None
