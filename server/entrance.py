"""Registration and login: who is who (docs/protocol.md §6, §7)."""

import hashlib
from dataclasses import replace
from typing import Final

from saltline.crypto.keylog import LOG_SIGNER, BadEntry, Entry, Op, leaf, replay
from saltline.crypto.keylog import Account as LoggedAccount
from saltline.crypto.signatures import (
    BadSignature,
    Identity,
    Malformed,
    RefusedKey,
    login_payload,
    register_payload,
    verify,
)
from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.messages import PROTOCOL_VERSION, encode_message
from saltline.protocol.names import BadName, check_user, is_reserved, skeleton
from saltline.server.codes import code_hash
from saltline.server.effects import Promote
from saltline.server.generations import Generations
from saltline.server.limits import TokenBuckets
from saltline.server.mailboxes import Mailboxes
from saltline.server.peers import Account, Connection, Device
from saltline.server.rooms import Rooms
from saltline.server.settings import Registration
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.switchboard import Switchboard

_UNSIGNED: Final = bytes(64)
_FIRST_DEVICE: Final = 1
_AHEAD_MAX_MS: Final = 86_400_000
_NO_PREVIOUS: Final = bytes(32)


class Entrance:
    """The part of the core that lets people in, and shows ended devices out."""

    def __init__(
        self, desk: Switchboard, generations: Generations, mailboxes: Mailboxes, rooms: Rooms
    ) -> None:
        self._desk = desk
        self._generations = generations
        self._mailboxes = mailboxes
        self._rooms = rooms
        self.registrations: TokenBuckets[str] = TokenBuckets(1, 1)

    # --- strangers -----------------------------------------------------------------------------

    def hello(self, connection: Connection, request: to_relay.Hello, body: bytes) -> None:
        """Agree on a version, and give what a login signs."""
        if connection.hello:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, "Only the first message is a hello.")
        if PROTOCOL_VERSION not in request.versions:
            raise ProtocolError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"This relay speaks version {PROTOCOL_VERSION} of the protocol only.",
            )
        if request.features:
            raise ProtocolError(
                ErrorCode.UNSUPPORTED_VERSION, "This relay knows none of the features asked for."
            )
        certificate = connection.certificate
        challenge = to_client.Challenge(
            version=PROTOCOL_VERSION,
            features=(),
            nonce=self._desk.random(32),
            log_key=self._desk.log_key.public,
            head=b"",
            certificate_not_after_ms=certificate.not_after_ms,
            certificate_signature=certificate.signature,
        )
        connection.hello = body
        connection.challenge = encode_message(challenge)
        self._desk.send(connection, challenge)

    def check_invite(
        self, connection: Connection, request: to_relay.CheckInvite, _body: bytes
    ) -> None:
        """Say what a code is for."""
        self._begin(connection)
        self._limit_registrations(connection)
        work = ask.FindCode(code_hash(request.code), self._desk.now_ms)
        self._desk.persist(work, self._code_found, connection, request)

    def _code_found(
        self,
        connection: Connection,
        request: to_relay.CheckInvite,
        _work: ask.FindCode,
        found: told.CodeFound,
    ) -> None:
        connection.is_logging_in = False
        device, number, previous = _FIRST_DEVICE, 0, _NO_PREVIOUS
        if found.username:
            account = replay(found.entries, self._desk.log_key.public)
            device = account.highest_device + 1
            number, previous = account.next_number, account.last_hash
        answer = to_client.Invited(request.id, found.username, device, number, previous)
        self._desk.send(connection, answer)

    def register(self, connection: Connection, request: to_relay.Register, _body: bytes) -> None:
        """Open an account with its create entry, or begin anew with a reset entry."""
        self._begin(connection)
        self._limit_registrations(connection)
        _check_name(request.username)
        entry = _decode_entry(request)
        if entry.time_ms > self._desk.now_ms + _AHEAD_MAX_MS:
            raise ProtocolError(
                ErrorCode.BAD_ENTRY, "The entry's time is more than a day ahead. Check the clock."
            )
        self._check_registration(connection, request, entry)
        if entry.op is Op.CREATE:
            self._create(connection, request, entry)
        elif entry.op is not Op.RESET:
            raise _bad_entry("only create and reset entries register")
        else:
            work = ask.FindCode(code_hash(request.invite), self._desk.now_ms)
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
            raise _bad_login() from None

    def _create(self, connection: Connection, request: to_relay.Register, entry: Entry) -> None:
        try:
            LoggedAccount.start(entry, self._desk.log_key.public)
        except BadEntry as error:
            raise _bad_entry(error) from None
        if entry.identity.device != _FIRST_DEVICE:
            raise _bad_entry("an account's first device has number 1")
        if not request.invite and self._desk.settings.registration is Registration.INVITE:
            raise ProtocolError(
                ErrorCode.INVITE_NEEDED,
                "This relay takes new accounts by invitation. Ask its admin for a code.",
            )
        work = ask.CreateAccount(
            skeleton=skeleton(request.username),
            entry=log_entry(entry),
            device=_new_device(entry),
            code_hash=code_hash(request.invite) if request.invite else b"",
            now_ms=self._desk.now_ms,
        )
        self._desk.persist(work, self._created, connection, entry.identity)

    def _created(
        self,
        connection: Connection,
        identity: Identity,
        _work: ask.CreateAccount,
        created: told.AccountCreated,
    ) -> None:
        self._begin_session(connection, identity, created.account, created.mailbox)

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
            log_entry(signed), _new_device(signed), work.code_hash, self._desk.now_ms
        )
        self._desk.persist(reset, self._was_reset, connection, entry.identity)

    def _was_reset(
        self,
        connection: Connection,
        identity: Identity,
        _work: ask.ResetAccount,
        reset: told.AccountReset,
    ) -> None:
        self.end_devices(reset.ended, "This account was reset, which ended this device.")
        self._begin_session(connection, identity, reset.account, reset.mailbox)

    def login(self, connection: Connection, request: to_relay.Login, _body: bytes) -> None:
        """Who is this? The signature says so."""
        self._begin(connection)
        work = ask.FindDevice(request.username, request.device)
        self._desk.persist(work, self._device_found, connection, request, self._not_found)

    def _not_found(
        self, _connection: Connection, _request: object, _work: object, error: told.StoreError
    ) -> None:
        if error.code is ErrorCode.STORAGE_FAILED or error.code is ErrorCode.INTERNAL:
            raise ProtocolError(error.code, error.detail)
        raise _bad_login()

    def _device_found(
        self,
        connection: Connection,
        request: to_relay.Login,
        _work: ask.FindDevice,
        found: told.DeviceFound,
    ) -> None:
        identity = Identity.decode(found.identity)
        payload = login_payload(
            self._desk.log_key.relay_id,
            request.username,
            request.device,
            connection.hello,
            connection.challenge,
            connection.certificate.spki_hash,
        )
        try:
            verify(identity.signing_key, payload, request.signature)
        except BadSignature:
            raise _bad_login() from None
        if not found.live:
            raise _removed()
        self._begin_session(
            connection,
            identity,
            found.account,
            found.mailbox,
            request.one_time_ids,
            request.one_time_kem_ids,
        )

    def _begin(self, connection: Connection) -> None:
        """A stranger asks to be let in: one request at a time, after the hello."""
        if not connection.hello:
            raise ProtocolError(ErrorCode.TOO_EARLY, "The first message is a hello.")
        if connection.is_logging_in:
            raise ProtocolError(ErrorCode.TOO_EARLY, "The request before is not answered yet.")
        connection.is_logging_in = True

    def _limit_registrations(self, connection: Connection) -> None:
        wait_ms = self.registrations.take(connection.address, 1, self._desk.now_ms)
        if wait_ms:
            raise ProtocolError(
                ErrorCode.RATE_LIMITED, "Too many registrations from your address.", wait_ms
            )

    # --- logged in -----------------------------------------------------------------------------

    def _begin_session(
        self,
        connection: Connection,
        identity: Identity,
        account: int,
        mailbox: int,
        one_time_ids: tuple[int, ...] = (),
        one_time_kem_ids: tuple[int, ...] = (),
    ) -> None:
        desk = self._desk
        online = len(desk.connections) - len(desk.strangers)
        if online >= desk.settings.connections_max and mailbox not in desk.mailboxes:
            raise ProtocolError(
                ErrorCode.TOO_MANY_CONNECTIONS, "This relay serves as many as it can. Try later."
            )
        work = ask.BeginSession(account, mailbox, one_time_ids, one_time_kem_ids)
        desk.persist(work, self._session_begun, connection, identity, self._session_refused)

    def _session_refused(
        self, _connection: Connection, _identity: object, _work: object, error: told.StoreError
    ) -> None:
        if error.code is ErrorCode.UNKNOWN_DEVICE:
            raise _removed()
        raise ProtocolError(error.code, error.detail)

    def _session_begun(
        self,
        connection: Connection,
        identity: Identity,
        work: ask.BeginSession,
        begun: told.SessionBegun,
    ) -> None:
        desk = self._desk
        if not connection.is_open:
            return
        if desk.is_stopping:
            raise ProtocolError(ErrorCode.STOPPING, "The relay is stopping. Come back soon.")
        older = desk.mailboxes.get(work.mailbox)
        if older is not None:
            desk.dismiss(older, ErrorCode.REPLACED, "This device logged in on a newer connection.")
        generation = self._generations.greatest(work.mailbox, begun.generation)
        account = desk.accounts.get(work.account) or Account(work.account, identity.username)
        desk.welcome(connection, Device(account, work.mailbox, identity, generation))
        desk.add(Promote(connection.number))
        desk.send(
            connection,
            to_client.Welcome(
                time_ms=desk.now_ms,
                rooms=tuple(to_client.RoomMark(room.room, room.last) for room in begun.rooms),
                signed_prekey_id=begun.signed_prekey_id,
                kem_prekey_id=begun.kem_prekey_id,
                one_time_left=begun.one_time_left,
                one_time_kem_left=begun.one_time_kem_left,
                generation=generation,
            ),
        )
        self._rooms.arrived(connection, begun.rooms)
        self._mailboxes.arrived(connection)

    def end_devices(self, mailboxes: tuple[int, ...], detail: str) -> None:
        """Devices were ended: their connections go too."""
        for mailbox in mailboxes:
            self._generations.forget(mailbox)
            connection = self._desk.mailboxes.get(mailbox)
            if connection is not None:
                self._desk.dismiss(connection, ErrorCode.REMOVED, detail)


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


def _bad_login() -> ProtocolError:
    # One sentence for an unknown name, an unknown device and a wrong key alike.
    return ProtocolError(
        ErrorCode.BAD_LOGIN, "This name, device and key do not belong together on this relay."
    )


def _removed() -> ProtocolError:
    return ProtocolError(ErrorCode.REMOVED, "This device was ended: by a reset, or by the admin.")
