"""Mistakes that a relay could make, planted one at a time: the simulation has to notice each."""

from typing import Any, Final

import apsw

from saltline.protocol import to_client
from saltline.server import entrance, mailboxes, presence, rooms
from saltline.server.store import operations as ask
from saltline.server.store.accounts import Accounts
from saltline.server.store.interface import EnvelopeStored, StoreError
from saltline.server.store.mailboxes import Mailboxes as StoredMailboxes
from saltline.server.store.prekeys import Prekeys
from saltline.server.store.rooms import Rooms as StoredRooms
from saltline.server.store.sqlite import SqliteStore
from saltline.server.store.tails import Tails
from saltline.server.switchboard import Switchboard
from tests.simulation.planting import Bug, Patches

PREPARE: Final[Any] = SqliteStore._prepare


def no_fsync(patches: Patches) -> None:
    def prepare(self: SqliteStore, database: apsw.Connection, relay_id: bytes) -> None:
        PREPARE(self, database, relay_id)
        database.execute("PRAGMA synchronous = NORMAL")

    patches.put(SqliteStore, "_prepare", prepare)


def commits_every_second_group(patches: Patches) -> None:
    """What was told after the first of two lies in an open transaction."""

    def run_group(self: Any, operations: Any) -> Any:
        database = self._database
        if not database.in_transaction:
            database.execute("BEGIN IMMEDIATE")
        outcomes = [self._handlers[type(each)](each) for each in operations]
        self._flush()
        self.groups = getattr(self, "groups", 0) + 1
        if self.groups % 2 == 0:
            database.execute("COMMIT")
        return outcomes

    patches.put(SqliteStore, "_run_group", run_group)
    patches.put(SqliteStore, "maintain", lambda _, **__: None)


def acknowledges_before_the_commit(patches: Patches) -> None:
    submit, answer = mailboxes.Mailboxes.submit, mailboxes.Mailboxes._submitted

    def submit_early(self: Any, connection: Any, request: Any) -> None:
        self._desk.send(connection, to_client.Submitted(request.id))
        submit(self, connection, request)

    def push_only(self: Any, connection: Any, request: Any, work: Any, stored: Any) -> None:
        send = self._desk.send
        self._desk.send = lambda to, message: (
            None if type(message) is to_client.Submitted else send(to, message)
        )
        try:
            answer(self, connection, request, work, stored)
        finally:
            del self._desk.send

    patches.put(mailboxes.Mailboxes, "submit", submit_early)
    patches.put(mailboxes.Mailboxes, "_submitted", push_only)


def says_submitted_for_a_full_mailbox(patches: Patches) -> None:
    def submit(self: Any, connection: Any, request: Any) -> None:
        settings, desk = self._desk.settings, self._desk
        work = ask.StoreEnvelope(
            request.username,
            request.device,
            request.envelope,
            settings.mailbox_max_envelopes,
            settings.mailbox_max_bytes,
            desk.now_ms,
        )

        def refused(connection: Any, request: Any, _work: Any, _error: StoreError) -> None:
            desk.send(connection, to_client.Submitted(request.id))

        desk.persist(work, self._submitted, connection, request, refused)

    patches.put(mailboxes.Mailboxes, "submit", submit)


def deletes_before_the_acknowledgement(patches: Patches) -> None:
    push = mailboxes.Mailboxes._push

    def push_and_delete(self: Any, connection: Any, delivery: Any, number: int, *more: Any) -> None:
        push(self, connection, delivery, number, *more)
        work = ask.DeleteEnvelopes(connection.known.mailbox, (number,))
        self._desk.persist(work, lambda *_: None, None, None, lambda *_: None)

    patches.put(mailboxes.Mailboxes, "_push", push_and_delete)


def delivers_out_of_order(patches: Patches) -> None:
    read = StoredMailboxes.read

    def read_backwards(self: Any, work: Any) -> Any:
        found = read(self, work)
        return type(found)(tuple(reversed(found.envelopes)), found.more)

    patches.put(StoredMailboxes, "read", read_backwards)


def forgets_to_push_after_a_reconnect(patches: Patches) -> None:
    def arrived(self: Any, connection: Any, _has_mail: bool) -> None:
        delivery = self._deliveries[connection.known.mailbox] = mailboxes.Delivery()
        delivery.is_live = True
        self._desk.send(connection, to_client.CaughtUp(0))

    patches.put(mailboxes.Mailboxes, "arrived", arrived)


def pushes_one_more_than_the_window(patches: Patches) -> None:
    def has_room(self: Any, delivery: Any, size: int) -> bool:
        settings = self._desk.settings
        return not delivery.unacknowledged or (
            len(delivery.unacknowledged) <= settings.delivery_window_envelopes
            and delivery.window_bytes + size <= settings.delivery_window_bytes
        )

    patches.put(mailboxes.Mailboxes, "_has_room", has_room)


def stalls_when_the_window_was_full(patches: Patches) -> None:
    """After it, nobody reads on from the disk."""
    read_on = mailboxes.Mailboxes._read_on

    def read_on_once(self: Any, connection: Any, delivery: Any) -> None:
        if not delivery.last:
            read_on(self, connection, delivery)

    patches.put(mailboxes.Mailboxes, "_read_on", read_on_once)


def uses_mailbox_numbers_again_after_a_crash(patches: Patches) -> None:
    flush = StoredMailboxes.flush

    def flush_without_numbers(self: Any) -> None:
        changed, self._changed = self._changed, {}
        flush(self)
        for box in changed.values():
            self._execute(
                "UPDATE mailbox SET waiting = ?, waiting_bytes = ? WHERE id = ?",
                (box.waiting, box.waiting_bytes, box.id),
            )

    patches.put(StoredMailboxes, "flush", flush_without_numbers)


def forgets_to_count_what_waits(patches: Patches) -> None:
    flush = StoredMailboxes.flush

    def flush_without_counts(self: Any) -> None:
        for box in self._changed.values():
            box.waiting = max(0, box.waiting - 1)
        flush(self)

    patches.put(StoredMailboxes, "flush", flush_without_counts)


def lets_anybody_log_in(patches: Patches) -> None:
    patches.put(entrance, "verify", lambda *_: None)


def takes_a_post_twice(patches: Patches) -> None:
    """No look for the message id, nor for the time."""
    store_texts = StoredRooms.store_texts

    def store_again(self: Any, work: Any) -> Any:
        room = self._tails.by_name.get(work.entries[0].room)
        if room is not None:
            room.recent.clear()
            room.authors.clear()
            self._execute("UPDATE member SET newest_ms = 0")
        return store_texts(self, work)

    patches.put(StoredRooms, "store_texts", store_again)


def uses_room_numbers_again_after_a_crash(patches: Patches) -> None:
    """Of a room that is loaded, what its row does not say yet is not looked up."""
    read_end = Tails._read_end

    def read_up_to_the_row(self: Any, room: Any) -> None:
        last, last_hash = room.last_number, room.last_hash
        read_end(self, room)
        room.last_number, room.last_hash = last, last_hash

    patches.put(Tails, "_read_end", read_up_to_the_row)


def broadcasts_before_the_commit(patches: Patches) -> None:
    post = rooms.Rooms.post

    def post_early(self: Any, connection: Any, request: Any) -> None:
        room = self._presence.rooms.get(request.room)
        statement = self._checked(request.statement)
        if room is not None:
            entry = self._new_entry(connection.known, request, statement)
            self._broadcast(entry, room.last + 1, room.members)
        post(self, connection, request)

    patches.put(rooms.Rooms, "post", post_early)


def rewrites_the_key_log(patches: Patches) -> None:
    begin = Prekeys.begin_session

    def begin_and_rewrite(self: Any, work: Any) -> Any:
        self._execute("UPDATE log SET entry = entry || x'00' WHERE sequence = 1")
        return begin(self, work)

    patches.put(Prekeys, "begin_session", begin_and_rewrite)


def hides_an_account(patches: Patches) -> None:
    """Lookups of somebody else say that there is nobody."""
    read = Accounts.read_entries

    def read_nothing(self: Any, work: Any) -> Any:
        found = read(self, work)
        pages = tuple(type(page)(page.username, 0, ()) for page in found.pages)
        return type(found)(pages)

    patches.put(Accounts, "read_entries", read_nothing)


def hands_a_prekey_out_twice(patches: Patches) -> None:
    claim = Prekeys.claim

    def claim_and_keep(self: Any, work: Any) -> Any:
        execute = self._execute
        self._execute = lambda sql, *more: (
            None if sql.startswith("DELETE FROM prekey") else execute(sql, *more)
        )
        try:
            return claim(self, work)
        finally:
            self._execute = execute

    patches.put(Prekeys, "claim", claim_and_keep)


def takes_a_full_disk_for_done(patches: Patches) -> None:
    run_alone = SqliteStore._run_alone

    def run_anyway(self: Any, operation: Any) -> Any:
        outcome = run_alone(self, operation)
        if type(outcome) is StoreError and type(operation) is ask.StoreEnvelope:
            return EnvelopeStored(0, 1)
        return outcome

    patches.put(SqliteStore, "_run_alone", run_anyway)
    patches.put(SqliteStore, "_require_space", lambda *_: None)


def reads_on_whatever_waits_for_the_disk(patches: Patches) -> None:
    patches.put(Switchboard, "pause_if_too_much", lambda *_: None)


def pushes_to_who_reads_too_slowly(patches: Patches) -> None:
    def recipients(self: Any) -> Any:
        return [each.number for one in self.accounts.values() for each in one.connections]

    patches.put(presence.LiveRoom, "recipients", recipients)


RELAY_BUGS: Final = tuple(
    Bug(plant)
    for plant in (
        no_fsync,
        commits_every_second_group,
        acknowledges_before_the_commit,
        says_submitted_for_a_full_mailbox,
        takes_a_full_disk_for_done,
        deletes_before_the_acknowledgement,
        delivers_out_of_order,
        forgets_to_push_after_a_reconnect,
        pushes_one_more_than_the_window,
        stalls_when_the_window_was_full,
        uses_mailbox_numbers_again_after_a_crash,
        forgets_to_count_what_waits,
        lets_anybody_log_in,
        takes_a_post_twice,
        uses_room_numbers_again_after_a_crash,
        broadcasts_before_the_commit,
        rewrites_the_key_log,
        hides_an_account,
        hands_a_prekey_out_twice,
        reads_on_whatever_waits_for_the_disk,
        pushes_to_who_reads_too_slowly,
    )
)
