"""Registration: a new account, or a new beginning of an old one (docs/protocol.md §6, §7)."""

import hashlib
from dataclasses import replace
from typing import Final

from saltline.crypto.keylog import (
    LOG_SIGNER,
    NO_PREVIOUS,
    Account,
    BadEntry,
    Entry,
    Op,
    leaf,
    replay,
)
from saltline.crypto.signatures import (
    BadSignature,
    Malformed,
    RefusedKey,
    register_payload,
    verify,
)
from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.limits import DATED_AHEAD_MAX_S
from saltline.protocol.names import BadName, check_user, is_reserved, skeleton
from saltline.server.codes import code_hash
from saltline.server.entrance import Entrance, bad_login
from saltline.server.limits import TokenBuckets
from saltline.server.peers import Connection, Newcomer
from saltline.server.settings import Registration as WhoMayRegister
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.switchboard import Switchboard

_UNSIGNED: Final = bytes(64)
_FIRST_DEVICE: Final = 1


class Registration:
    """The part of the core that writes into the key log."""

    def __init__(self, desk: Switchboard, entrance: Entrance) -> None:
        self._desk = desk
        self._entrance = entrance
        self.attempts: TokenBuckets[str] = TokenBuckets(1, 1)

    def check_invite(
        self, connection: Connection, request: to_relay.CheckInvite, _body: bytes
    ) -> None:
        """Say what a code is for."""
        self._entrance.begin(connection)
        self._limit(connection)
        work = ask.FindCode(code_hash(request.code), self._desk.date_ms)
        self._desk.persist(work, self._code_found, connection, request)

    def _code_found(
        self,
        connection: Connection,
        request: to_relay.CheckInvite,
        _work: ask.FindCode,
        found: told.CodeFound,
    ) -> None:
        self._desk.strangers.serve(connection, False)
        device, number, previous = _FIRST_DEVICE, 0, NO_PREVIOUS
        if found.username:
            account = replay(found.entries, self._desk.log_key.public)
            device = account.highest_device + 1
            number, previous = account.next_number, account.last_hash
        answer = to_client.Invited(request.id, found.username, device, number, previous)
        self._desk.send(connection, answer)

    def register(self, connection: Connection, request: to_relay.Register, _body: bytes) -> None:
        """Open an account with its create entry, or begin anew with a reset entry."""
        self._entrance.begin(connection)
        self._limit(connection)
        _check_name(request.username)
        entry = _decode_entry(request)
        if entry.time_ms > self._desk.date_ms + DATED_AHEAD_MAX_S * 1000:
            raise ProtocolError(
                ErrorCode.BAD_ENTRY, "The entry's time is more than a day ahead. Check the clock."
            )
        self._check_registration(connection, request, entry)
        if entry.op is Op.CREATE:
            self._create(connection, request, entry)
        elif entry.op is not Op.RESET:
            raise _bad_entry("only create and reset entries register")
        else:
            work = ask.FindCode(code_hash(request.invite), self._desk.date_ms)
            self._desk.persist(work, self._reset_found, connection, (request, entry))

    def _check_registration(
        self, connection: Connection, request: to_relay.Register, entry: Entry
    ) -> None:
        payload = register_payload(
            self._desk.log_key.relay_id,
            request.username,
            entry.identity.device,
            connection.hello,
            connection.challenge,
            connection.certificate.spki_hash,
            hashlib.sha256(request.entry).digest(),
        )
        try:
            verify(entry.identity.signing_key, payload, request.signature)
        except BadSignature:
            raise bad_login() from None

    def _create(self, connection: Connection, request: to_relay.Register, entry: Entry) -> None:
        try:
            Account.start(entry, self._desk.log_key.public)
        except BadEntry as error:
            raise _bad_entry(error) from None
        if entry.identity.device != _FIRST_DEVICE:
            raise _bad_entry("an account's first device has number 1")
        if not request.invite and self._desk.settings.registration is WhoMayRegister.INVITE:
            raise ProtocolError(
                ErrorCode.INVITE_NEEDED,
                "This relay takes new accounts by invitation. Ask its admin for a code.",
            )
        work = ask.CreateAccount(
            skeleton=skeleton(request.username),
            entry=log_entry(entry),
            device=_new_device(entry),
            code_hash=code_hash(request.invite) if request.invite else b"",
            now_ms=self._desk.date_ms,
        )
        self._desk.persist(work, self._created, connection, Newcomer.of(entry.identity))

    def _created(
        self,
        connection: Connection,
        newcomer: Newcomer,
        _work: ask.CreateAccount,
        created: told.AccountCreated,
    ) -> None:
        self._entrance.begin_session(connection, newcomer, created.account, created.mailbox)

    def _reset_found(
        self,
        connection: Connection,
        request: tuple[to_relay.Register, Entry],
        work: ask.FindCode,
        found: told.CodeFound,
    ) -> None:
        register, entry = request
        if found.username != register.username:
            raise ProtocolError(ErrorCode.BAD_INVITE, "This code does not reset this account.")
        log_key = self._desk.log_key
        account = replay(found.entries, log_key.public)
        if entry.signer != LOG_SIGNER or entry.signature != _UNSIGNED:
            raise _bad_entry("the relay signs a reset itself")
        if entry.identity.device != account.highest_device + 1:
            raise _bad_entry("a new device takes the next number")
        signed = replace(entry, signature=log_key.sign(entry.unsigned()))
        try:
            account.apply(signed, log_key.public)
        except BadEntry as error:
            raise _bad_entry(error) from None
        reset = ask.ResetAccount(
            log_entry(signed), _new_device(signed), work.code_hash, self._desk.date_ms
        )
        self._desk.persist(reset, self._was_reset, connection, Newcomer.of(entry.identity))

    def _was_reset(
        self,
        connection: Connection,
        newcomer: Newcomer,
        _work: ask.ResetAccount,
        reset: told.AccountReset,
    ) -> None:
        self._entrance.end_devices(reset.ended, "This account was reset, which ended this device.")
        self._entrance.begin_session(connection, newcomer, reset.account, reset.mailbox)

    def _limit(self, connection: Connection) -> None:
        wait_ms = self.attempts.take(connection.address, 1, self._desk.now_ms)
        if wait_ms:
            raise ProtocolError(
                ErrorCode.RATE_LIMITED, "Too many registrations from your address.", wait_ms
            )


def log_entry(entry: Entry) -> ask.LogEntry:
    """An entry as the store keeps it."""
    return ask.LogEntry(entry.username, entry.number, entry.encode(), leaf(entry))


def _new_device(entry: Entry) -> ask.NewDevice:
    identity = entry.identity
    return ask.NewDevice(
        identity.device,
        identity.encode(),
        entry.identity_signature,
        identity.signing_key,
        identity.agreement_key,
    )


def _check_name(username: str) -> None:
    try:
        check_user(username)
    except BadName as error:
        raise ProtocolError(ErrorCode.BAD_NAME, str(error)) from None
    if is_reserved(username):
        raise ProtocolError(
            ErrorCode.BAD_NAME, f"The name {username} is, or looks like, a reserved one."
        )


def _decode_entry(request: to_relay.Register) -> Entry:
    try:
        entry = Entry.decode(request.entry)
    except (Malformed, RefusedKey) as error:
        raise _bad_entry(error) from None
    if entry.username != request.username:
        raise _bad_entry("it names another user")
    return entry


def _bad_entry(why: object) -> ProtocolError:
    return ProtocolError(ErrorCode.BAD_ENTRY, f"The key log entry was refused: {why}.")
