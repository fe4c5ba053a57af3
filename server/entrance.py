"""Hello and login: who is on a connection (docs/protocol.md §6)."""

from saltline.crypto.signatures import BadSignature, login_payload, verify
from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.messages import PROTOCOL_VERSION, encode_message
from saltline.server.effects import Promote
from saltline.server.generations import Generations
from saltline.server.mailboxes import Mailboxes
from saltline.server.peers import Account, Connection, Device, Newcomer
from saltline.server.rooms import Rooms
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.switchboard import Switchboard


class Entrance:
    """The part of the core that lets people in, and shows ended devices out."""

    def __init__(
        self, desk: Switchboard, generations: Generations, mailboxes: Mailboxes, rooms: Rooms
    ) -> None:
        self._desk = desk
        self._generations = generations
        self._mailboxes = mailboxes
        self._rooms = rooms

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

    def login(self, connection: Connection, request: to_relay.Login, _body: bytes) -> None:
        """Who is this? The signature says so."""
        self.begin(connection)
        work = ask.FindDevice(request.username, request.device)
        self._desk.persist(work, self._device_found, connection, request, self._not_found)

    def _not_found(
        self, _connection: Connection, _request: object, _work: object, error: told.StoreError
    ) -> None:
        if error.code is ErrorCode.STORAGE_FAILED or error.code is ErrorCode.INTERNAL:
            raise ProtocolError(error.code, error.detail)
        raise bad_login()

    def _device_found(
        self,
        connection: Connection,
        request: to_relay.Login,
        _work: ask.FindDevice,
        found: told.DeviceFound,
    ) -> None:
        newcomer = Newcomer(request.username, request.device, found.identity)
        payload = login_payload(
            self._desk.log_key.relay_id,
            request.username,
            request.device,
            connection.hello,
            connection.challenge,
            connection.certificate.spki_hash,
        )
        try:
            verify(newcomer.signing_key, payload, request.signature)
        except BadSignature:
            raise bad_login() from None
        self.begin_session(
            connection,
            newcomer,
            found.account,
            found.mailbox,
            request.one_time_ids,
            request.one_time_kem_ids,
        )

    def begin(self, connection: Connection) -> None:
        """A stranger asks to be let in: one request at a time, after the hello."""
        if not connection.hello:
            raise ProtocolError(ErrorCode.TOO_EARLY, "The first message is a hello.")
        if connection.is_logging_in:
            raise ProtocolError(ErrorCode.TOO_EARLY, "The request before is not answered yet.")
        self._desk.strangers.serve(connection, True)

    # --- logged in -----------------------------------------------------------------------------

    def begin_session(
        self,
        connection: Connection,
        newcomer: Newcomer,
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
        desk.persist(work, self._session_begun, connection, newcomer, self._session_refused)

    def _session_refused(
        self, _connection: Connection, _newcomer: object, _work: object, error: told.StoreError
    ) -> None:
        if error.code is ErrorCode.UNKNOWN_DEVICE:
            raise _removed()
        raise ProtocolError(error.code, error.detail)

    def _session_begun(
        self,
        connection: Connection,
        newcomer: Newcomer,
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
        account = desk.accounts.get(work.account) or Account(work.account, newcomer.username)
        desk.welcome(connection, Device(account, work.mailbox, newcomer, generation))
        desk.add(Promote(connection.number))
        desk.send(
            connection,
            to_client.Welcome(
                time_ms=desk.date_ms,
                rooms=tuple(to_client.RoomMark(room.room, room.last) for room in begun.rooms),
                signed_prekey_id=begun.signed_prekey_id,
                kem_prekey_id=begun.kem_prekey_id,
                one_time_left=begun.one_time_left,
                one_time_kem_left=begun.one_time_kem_left,
                generation=generation,
            ),
        )
        self._rooms.arrived(connection, begun.rooms)
        self._mailboxes.arrived(connection, begun.has_mail)

    def end_devices(self, mailboxes: tuple[int, ...], detail: str) -> None:
        """Devices were ended: their connections go too, and what waits for them."""
        for mailbox in mailboxes:
            self._generations.forget(mailbox)
            connection = self._desk.mailboxes.get(mailbox)
            if connection is not None:
                self._desk.dismiss(connection, ErrorCode.REMOVED, detail)
        self._mailboxes.expire()


def bad_login() -> ProtocolError:
    """One sentence for an unknown name, an unknown device and a wrong key alike."""
    return ProtocolError(
        ErrorCode.BAD_LOGIN, "This name, device and key do not belong together on this relay."
    )


def _removed() -> ProtocolError:
    return ProtocolError(ErrorCode.REMOVED, "This device was ended: by a reset, or by the admin.")
