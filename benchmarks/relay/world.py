"""Accounts, rooms and waiting envelopes in a relay's data folder, before the relay starts.

Written through the relay's own store, in big groups; keys and entries are real, so that every login
is checked as any other. Seeds stay in memory and in the plan of one run.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Self

from benchmarks.relay.plans import MARK
from saltline.crypto.keylog import LogKey, create_entry
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement
from saltline.protocol.content import RoomKind
from saltline.protocol.names import skeleton
from saltline.server.data_folder import DataFolder
from saltline.server.registration import log_entry
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.store.sqlite import SqliteStore

GROUP: Final = 5_000
_DEVICE: Final = 1
_PLENTY: Final = 2**40


@dataclass(frozen=True, slots=True)
class Member:
    """An account with its one device. `seed` is its Ed25519 key's, 32 bytes."""

    username: str
    identity_hash: bytes
    account: int
    mailbox: int
    seed: bytes = field(repr=False)


class World:
    """A data folder that is being filled; a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = DataFolder.open(folder, create=True)
        self.log_key = LogKey.from_seed(self.folder.log_key_seed(os.urandom))
        self.relay_id = self.log_key.relay_id
        self.now_ms = time.time_ns() // 1_000_000
        self._store = SqliteStore(self.folder.database, self.relay_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._store.close()
        self.folder.close()

    def add_members(self, count: int, prefix: str = "bench") -> list[Member]:
        """Open accounts `prefix-0` and so on."""
        members: list[Member] = []
        numbers = iter(range(count))
        while batch := list(islice(numbers, GROUP)):
            keys = [
                IdentityKeys.generate(self.relay_id, f"{prefix}-{number}", _DEVICE, os.urandom)
                for number in batch
            ]
            outcomes = self._run([self._creation(each) for each in keys])
            for each, created in zip(keys, outcomes, strict=True):
                assert isinstance(created, told.AccountCreated)
                members.append(
                    Member(
                        each.identity.username,
                        each.identity.hash,
                        created.account,
                        created.mailbox,
                        each.to_bytes()[-64:-32],
                    )
                )
        return members

    def join(self, room: str, members: Sequence[Member]) -> None:
        """Make them members of a room."""
        self._run(
            [
                ask.JoinRoom(self._join_entry(room, member), 0, _PLENTY, _PLENTY)
                for member in members
            ]
        )

    def fill_mailbox(self, member: Member, count: int, body_bytes: int) -> None:
        """Let envelopes wait."""
        envelopes = self._envelopes(member, count, MARK.ljust(body_bytes, b"x"))
        while batch := list(islice(envelopes, GROUP)):
            self._run(batch)

    # --- parts ---------------------------------------------------------------------------------

    def _run(self, operations: Sequence[ask.Operation]) -> list[told.Outcome]:
        outcomes: list[told.Outcome] = []
        for outcome in self._store.run(operations):
            if isinstance(outcome, told.StoreError):
                raise RuntimeError(f"the store refused: {outcome.detail}")
            outcomes.append(outcome)
        self._store.maintain()
        return outcomes

    def _creation(self, keys: IdentityKeys) -> ask.CreateAccount:
        identity = keys.identity
        entry = create_entry(identity, keys.identity_signature, self.now_ms, keys.sign)
        device = ask.NewDevice(
            device=identity.device,
            identity=identity.encode(),
            identity_signature=keys.identity_signature,
            signing_key=identity.signing_key,
            agreement_key=identity.agreement_key,
        )
        return ask.CreateAccount(
            skeleton(identity.username), log_entry(entry), device, b"", self.now_ms
        )

    def _join_entry(self, room: str, member: Member) -> ask.NewEntry:
        statement = RoomStatement(
            kind=RoomKind.JOIN,
            message_id=os.urandom(16),
            time_ms=self.now_ms,
            seen=0,
            seen_hash=EMPTY_HISTORY,
            body=b"",
        )
        return ask.NewEntry(
            room=room,
            account=member.account,
            mailbox=member.mailbox,
            username=member.username,
            device=_DEVICE,
            message_id=statement.message_id,
            time_ms=statement.time_ms,
            seen=statement.seen,
            seen_hash=statement.seen_hash,
            statement=statement.encode(),
            signature=b"\xaa" * 64,
            now_ms=self.now_ms,
        )

    def _envelopes(
        self, member: Member, count: int, envelope: bytes
    ) -> Iterator[ask.StoreEnvelope]:
        for _ in range(count):
            yield ask.StoreEnvelope(
                member.username, _DEVICE, envelope, _PLENTY, _PLENTY, self.now_ms
            )
