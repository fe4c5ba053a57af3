"""Someone with real keys who speaks to a `MemoryRelay` message by message."""

from typing import TypeVar

from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.keylog import LOG_SIGNER, Entry, Op, create_entry
from saltline.crypto.keys import IdentityKeys, PrekeyPair, generate_prekey
from saltline.crypto.primitives import sha256
from saltline.crypto.signatures import (
    EMPTY_HISTORY,
    RoomStatement,
    login_payload,
    register_payload,
    room_payload,
)
from saltline.protocol.content import RoomKind
from saltline.protocol.messages import encode_message
from saltline.protocol.to_client import Challenge, Invited, Joined, Posted, RoomEntry, Welcome
from saltline.protocol.to_relay import (
    CheckInvite,
    Hello,
    Join,
    Login,
    Post,
    Publish,
    Register,
    Submit,
)
from tests.pushes import Heard
from tests.server.relay_harness import MemoryConnection, MemoryRelay

HELLO = Hello(versions=(1,), features=(), agent="test")
NO_SIGNATURE = bytes(64)

Message = TypeVar("Message", bound=Heard)
Answer = TypeVar("Answer", Joined, Posted)


class Person:
    """One device of one account, and its connection."""

    def __init__(self, relay: MemoryRelay, username: str, device: int = 1) -> None:
        self.relay = relay
        self.username = username
        self.keys = IdentityKeys.generate(relay.log_key.relay_id, username, device, relay.random)
        self.prekeys: dict[tuple[PrekeyKind, int], PrekeyPair] = {}
        self.connection = MemoryConnection(relay, 0)  # connected to nothing yet
        self.last_request = 0
        self.last_time_ms = 0

    # --- coming in -----------------------------------------------------------------------------

    def connect(self, address: str = "192.0.2.1") -> Challenge:
        """A new connection, greeted."""
        self.connection = self.relay.connect(address)
        self.connection.send(HELLO)
        return self.connection.take_one(Challenge)

    def entry(self) -> Entry:
        """The create entry of this account."""
        return create_entry(
            self.keys.identity, self.keys.identity_signature, self.relay.now_ms, self.keys.sign
        )

    def reset_entry(self, invited: Invited) -> Entry:
        """The reset entry that this device asks the relay to sign."""
        return Entry(
            op=Op.RESET,
            username=self.username,
            number=invited.number,
            previous=invited.previous,
            time_ms=self.relay.now_ms,
            identity=self.keys.identity,
            identity_signature=self.keys.identity_signature,
            signer=LOG_SIGNER,
            signature=NO_SIGNATURE,
        )

    def registration(self, entry: Entry, invite: str = "") -> Register:
        """The request that registers with an entry, on the connection as it is now."""
        challenge = self.connection.bodies[0]
        payload = register_payload(
            self.relay.log_key.relay_id,
            self.username,
            self.keys.identity.device,
            encode_message(HELLO),
            challenge,
            self.relay.certificate.spki_hash,
            sha256(entry.encode()),
        )
        return Register(self.username, entry.encode(), self.keys.sign(payload), invite)

    def login_request(
        self,
        one_time_ids: tuple[int, ...] | None = None,
        one_time_kem_ids: tuple[int, ...] | None = None,
    ) -> Login:
        """The request that logs in, on the connection as it is now; ids: None for all."""
        payload = login_payload(
            self.relay.log_key.relay_id,
            self.username,
            self.keys.identity.device,
            encode_message(HELLO),
            self.connection.bodies[0],
            self.relay.certificate.spki_hash,
        )
        held = self.ids(PrekeyKind.ONE_TIME) if one_time_ids is None else one_time_ids
        kem = self.ids(PrekeyKind.ONE_TIME_KEM) if one_time_kem_ids is None else one_time_kem_ids
        signature = self.keys.sign(payload)
        return Login(self.username, self.keys.identity.device, signature, held, kem)

    def register(self, invite: str = "", address: str = "192.0.2.1") -> Welcome:
        """Open the account. What else came stays in `received`."""
        self.connect(address)
        self.connection.send(self.registration(self.entry(), invite))
        return self.expect(Welcome)

    def login(self, address: str = "192.0.2.1") -> Welcome:
        """Log in on a new connection. What else came stays in `received`."""
        self.connect(address)
        self.connection.send(self.login_request())
        return self.expect(Welcome)

    def check_invite(self, code: str) -> Invited:
        """Ask what a code is for, on a new connection."""
        self.connect()
        self.connection.send(CheckInvite(1, code))
        return self.connection.take_one(Invited)

    # --- asking --------------------------------------------------------------------------------

    @property
    def received(self) -> list[Heard]:
        """What came on the connection and was not taken yet."""
        return self.connection.received

    def take(self) -> list[Heard]:
        """What came since the last time."""
        return self.connection.take()

    def expect(self, kind: type[Message]) -> Message:
        """Take the first message that came, which is of this kind."""
        assert self.received, "nothing came"
        message = self.received.pop(0)
        assert isinstance(message, kind), message
        return message

    def next_id(self) -> int:
        """A new request id."""
        self.last_request += 1
        return self.last_request

    # --- prekeys -------------------------------------------------------------------------------

    def ids(self, kind: PrekeyKind) -> tuple[int, ...]:
        """The ids of the prekeys of a kind that this device holds."""
        return tuple(id for held, id in self.prekeys if held is kind)

    def make(self, kind: PrekeyKind, *ids: int) -> list[PrekeyPair]:
        """Make prekeys, and keep them."""
        pairs = [
            generate_prekey(self.keys, kind, id, self.relay.now_ms, self.relay.random) for id in ids
        ]
        self.prekeys |= {(kind, pair.public.id): pair for pair in pairs}
        return pairs

    def publish(self, *pairs: PrekeyPair) -> None:
        """Ask the relay to keep the public halves."""
        encoded = tuple(pair.public.encode() for pair in pairs)
        self.connection.send(Publish(self.next_id(), encoded))

    # --- writing -------------------------------------------------------------------------------

    def submit(self, other: "Person", envelope: bytes, generation: bytes = b"") -> int:
        """Put an envelope into another's mailbox; the request's id."""
        request = self.next_id()
        device = other.keys.identity.device
        self.connection.send(Submit(request, other.username, device, envelope, generation))
        return request

    def statement(
        self,
        kind: int,
        body: bytes = b"",
        *,
        seen: int = 0,
        seen_hash: bytes = EMPTY_HISTORY,
        message_id: bytes | None = None,
    ) -> RoomStatement:
        """A statement of this device, later than the one before."""
        self.last_time_ms = max(self.relay.now_ms, self.last_time_ms + 1)
        return RoomStatement(
            kind=kind,
            message_id=message_id or self.relay.random(16),
            time_ms=self.last_time_ms,
            seen=seen,
            seen_hash=seen_hash,
            body=body,
        )

    def join_request(self, room: str, statement: RoomStatement) -> Join:
        """A signed request to join."""
        return Join(self.next_id(), room, statement.encode(), self.signature(room, statement))

    def post_request(self, room: str, statement: RoomStatement) -> Post:
        """A signed request to post."""
        return Post(self.next_id(), room, statement.encode(), self.signature(room, statement))

    def signature(self, room: str, statement: RoomStatement) -> bytes:
        """What says that this device said it there, 64 bytes."""
        relay_id, author = self.relay.log_key.relay_id, self.keys.identity.hash
        return self.keys.sign(room_payload(relay_id, room, author, statement.encode()))

    def join(self, room: str) -> Joined:
        """Join a room; its join entry is taken too."""
        self.connection.send(self.join_request(room, self.statement(RoomKind.JOIN)))
        return self._take_answer(Joined)

    def post(self, room: str, text: str) -> Posted:
        """Post a text; its own entry is taken too."""
        statement = self.statement(RoomKind.TEXT, text.encode())
        self.connection.send(self.post_request(room, statement))
        return self._take_answer(Posted)

    def leave(self, room: str) -> Posted:
        """Leave a room; its leave entry is taken too."""
        self.connection.send(self.post_request(room, self.statement(RoomKind.LEAVE)))
        return self._take_answer(Posted)

    def _take_answer(self, kind: type[Answer]) -> Answer:
        """The answer to the last request, and the entry that it was for; others stay."""
        (answer,) = (
            message
            for message in self.received
            if isinstance(message, kind) and message.id == self.last_request
        )
        (entry,) = (
            message
            for message in self.received
            if isinstance(message, RoomEntry)
            and (message.room, message.number) == (answer.room, answer.number)
        )
        self.received.remove(answer)
        self.received.remove(entry)
        return answer
