"""Somebody with real keys who speaks to a real relay over TLS."""

import hashlib
import ssl
import time
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.keylog import create_entry, relay_id
from saltline.crypto.keys import IdentityKeys, generate_prekey
from saltline.crypto.primitives import sha256, system_random
from saltline.crypto.signatures import (
    EMPTY_HISTORY,
    RoomStatement,
    certificate_payload,
    lengthen,
    login_payload,
    register_payload,
    room_payload,
    verify,
)
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import (
    ClientMessage,
    decode_relay_message,
    encode_message,
)
from saltline.protocol.to_client import (
    CaughtUp,
    Challenge,
    Deliver,
    Error,
    Joined,
    Published,
    RoomEntry,
    Submitted,
    Welcome,
)
from saltline.protocol.to_relay import (
    Acknowledge,
    Hello,
    Join,
    Login,
    Ping,
    Post,
    Publish,
    Register,
    Submit,
)
from tests.pushes import Heard, unfolded
from tests.server.edge import CutOff, RawClient

HELLO = encode_message(Hello(versions=(1,), features=(), agent="test"))
LOBBY = "#lobby"

Message = TypeVar("Message", bound=Heard)


def spki_hash(sock: ssl.SSLSocket) -> bytes:
    """H(SubjectPublicKeyInfo) of the certificate that the relay showed."""
    der = sock.getpeercert(binary_form=True)
    assert der is not None
    key = x509.load_der_x509_certificate(der).public_key()
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


class WireClient(RawClient):
    """A connection; `register` or `log_in` makes it a user's."""

    def __init__(self, port: int, name: str = "", **options: Any) -> None:
        super().__init__(port, **options)
        self.name = name
        self.spki_hash = spki_hash(self.sock)
        self.request = 0
        self._said_ms = 0
        self.challenge: Challenge | None = None
        self.challenge_body = b""
        self.aside: list[Heard] = []

    def say(self, *messages: ClientMessage) -> None:
        self.send(*map(encode_message, messages))

    def expect(self, kind: type[Message]) -> Message:
        """The next message of this kind; others are put aside."""
        if (found := self._put_aside(kind)) is not None:
            return found
        while True:
            self.aside += unfolded(decode_relay_message(self.receive()))
            if (found := self._put_aside(kind)) is not None:
                return found

    def _put_aside(self, kind: type[Message]) -> Message | None:
        for position, message in enumerate(self.aside):
            if isinstance(message, kind):
                return self.aside.pop(position)  # type: ignore[return-value]
        return None

    def next_id(self) -> int:
        self.request += 1
        return self.request

    def greet(self) -> Challenge:
        """hello -> challenge, with the log key's word for the certificate in use."""
        self.challenge_body = self.ask(HELLO)
        challenge = decode_relay_message(self.challenge_body)
        if isinstance(challenge, Error) and challenge.code == ErrorCode.TOO_MANY_CONNECTIONS:
            raise CutOff(challenge.detail)
        assert isinstance(challenge, Challenge), challenge
        verify(
            challenge.log_key,
            certificate_payload(self.spki_hash, challenge.certificate_not_after_ms),
            challenge.certificate_signature,
        )
        self.challenge = challenge
        return challenge

    def register(self, invite: str = "") -> IdentityKeys:
        """A new account; the keys to log in with."""
        keys = self.ask_to_register(invite)
        self.expect(Welcome)
        self.expect(CaughtUp)
        return keys

    def ask_to_register(self, invite: str = "") -> IdentityKeys:
        challenge = self.challenge or self.greet()
        relay = relay_id(challenge.log_key)
        keys = IdentityKeys.generate(relay, self.name, 1, system_random)
        now_ms = time.time_ns() // 1_000_000
        entry = create_entry(keys.identity, keys.identity_signature, now_ms, keys.sign).encode()
        payload = register_payload(
            relay, self.name, 1, HELLO, self.challenge_body, self.spki_hash, sha256(entry)
        )
        self.say(Register(self.name, entry, keys.sign(payload), invite))
        return keys

    def log_in(self, keys: IdentityKeys) -> Welcome:
        relay = relay_id(self.greet().log_key)
        payload = login_payload(relay, self.name, 1, HELLO, self.challenge_body, self.spki_hash)
        self.say(Login(self.name, 1, keys.sign(payload), (), ()))
        return self.expect(Welcome)

    def publish(self, keys: IdentityKeys) -> Published:
        now_ms = time.time_ns() // 1_000_000
        kinds = (PrekeyKind.SIGNED, PrekeyKind.LAST_RESORT_KEM, PrekeyKind.ONE_TIME)
        pairs = [generate_prekey(keys, kind, 1, now_ms, system_random) for kind in kinds]
        self.say(Publish(self.next_id(), tuple(pair.public.encode() for pair in pairs)))
        return self.expect(Published)

    def submit(self, to: str, envelope: bytes) -> None:
        """Returns when the relay has acknowledged it."""
        self.say(Submit(self.next_id(), to, 1, envelope, b""))
        self.expect(Submitted)

    def fetch(self) -> bytes:
        """The next envelope of the mailbox, acknowledged."""
        delivered = self.expect(Deliver)
        self.say(Acknowledge((delivered.number,), b""))
        return delivered.envelope

    def ping(self) -> None:
        self.say(Ping(self.next_id()))

    def join(self, keys: IdentityKeys, room: str = LOBBY) -> Joined:
        signed = self.statement(keys, room, RoomKind.JOIN, b"")
        self.say(Join(self.next_id(), room, *signed))
        return self.expect(Joined)

    def post(self, keys: IdentityKeys, text: bytes, room: str = LOBBY) -> None:
        signed = self.statement(keys, room, RoomKind.TEXT, text)
        self.say(Post(self.next_id(), room, *signed))

    def hear(self) -> bytes:
        """The text of the next room entry that has one."""
        while True:
            pushed = self.expect(RoomEntry).statement
            entry = RoomStatement.decode(lengthen(pushed, EMPTY_HISTORY), 1_000_000)
            if entry.kind == RoomKind.TEXT:
                return entry.body

    def statement(
        self, keys: IdentityKeys, room: str, kind: int, body: bytes
    ) -> tuple[bytes, bytes]:
        """A statement, later than the one before, and its signature."""
        self._said_ms = max(time.time_ns() // 1_000_000, self._said_ms + 1)
        message_id = system_random(16)
        said = RoomStatement(kind, message_id, self._said_ms, 0, EMPTY_HISTORY, body).encode()
        identity = keys.identity
        return said, keys.sign(room_payload(identity.relay_id, room, identity.hash, said))
