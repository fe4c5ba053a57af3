"""Two ends of a ratchet for tests, without sessions around them."""

from saltline.crypto.chains import Header, MessageKey
from saltline.crypto.primitives import x25519_generate
from saltline.crypto.ratchet import Ratchet
from tests.crypto.people import NOW_MS, refusal, seeded

SESSION_ID = bytes(range(16))
SECRET = b"s" * 32


class End:
    """One end of a ratchet. A message is its header and the key that it was encrypted with."""

    def __init__(self, ratchet: Ratchet, name: str) -> None:
        self.ratchet = ratchet
        self.random = seeded(name)

    def sends(self) -> tuple[bytes, MessageKey]:
        self.ratchet, key, header = self.ratchet.send(SESSION_ID, self.random)
        return header, key

    def sends_many(self, count: int) -> list[tuple[bytes, MessageKey]]:
        return [self.sends() for _ in range(count)]

    def tries(self, header: bytes, now_ms: int = NOW_MS) -> MessageKey:
        """Derives the key and commits nothing."""
        return self.ratchet.receive(Header.decode(header), now_ms)[1]

    def gets(self, message: tuple[bytes, MessageKey], now_ms: int = NOW_MS) -> None:
        header, expected = message
        after, key = self.ratchet.receive(Header.decode(header), now_ms)
        assert key == expected
        self.ratchet = after

    def misses(self, message: tuple[bytes, MessageKey], now_ms: int = NOW_MS) -> type | None:
        """How the message is refused; the state is as it was."""
        before = self.ratchet.to_bytes()
        how = refusal(self.tries, message[0], now_ms)
        assert self.ratchet.to_bytes() == before
        return how


def ends() -> tuple[End, End]:
    secret, public = x25519_generate(seeded("signed prekey"))
    alice = End(Ratchet.of_initiator(SECRET, public), "alice")
    return alice, End(Ratchet.of_responder(SECRET, secret), "bob")


def talking() -> tuple[End, End]:
    """After a message each way; Alice begins the next chain."""
    alice, bob = ends()
    bob.gets(alice.sends())
    alice.gets(bob.sends())
    return alice, bob
