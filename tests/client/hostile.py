"""What attacks need: a relay that withholds or says what it likes, a contact that forges."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from saltline.crypto.bundles import Bundle, Prekey
from saltline.crypto.session import Session
from saltline.crypto.signatures import Identity
from saltline.protocol import to_client, to_relay
from saltline.protocol.content import Content, encode_content
from saltline.protocol.frames import encode_frame
from saltline.protocol.messages import ClientMessage, encode_message
from tests.client.world import Person
from tests.pushes import Heard, encode_heard

Request = Callable[[int], ClientMessage]


def inject(person: Person, *messages: Heard) -> None:
    """The relay says this, all at once."""
    person.perform(person.core.received([encode_heard(each) for each in messages], person.now))


Tamper = Callable[[Heard], Iterable[Heard]]


def under(person: Person, tamper: Tamper | None) -> Person:
    """The same person, from now on behind a relay that lies like this."""
    person.offline()
    person.tamper = tamper
    return person.online()


class Withheld:
    """A tamper that keeps messages of one kind until `release`."""

    def __init__(self, person: Person, kind: type[Heard]) -> None:
        self._person, self._kind = person, kind
        self.kept: list[Heard] = []
        self.open = False

    def __call__(self, message: Heard) -> Iterable[Heard]:
        if isinstance(message, self._kind) and not self.open:
            self.kept.append(message)
            return
        yield message

    def release(self) -> None:
        self.open = True
        kept, self.kept = self.kept, []
        inject(self._person, *kept)


def replacing(kind: type[Heard], **changes: Any) -> Callable[[Heard], Any]:
    """A tamper: every message of a kind comes with these fields."""

    def tamper(message: Heard) -> Iterable[Heard]:
        if isinstance(message, kind):
            message = msgspec.structs.replace(message, **changes)
        yield message

    return tamper


def refusing(kind: type[Heard], code: str, times: int = 1) -> Callable[[Heard], Any]:
    """A tamper: the first answers of a kind become refusals."""
    left = [times]

    def tamper(message: Heard) -> Iterable[Heard]:
        if isinstance(message, kind) and left[0]:
            left[0] -= 1
            yield to_client.Error(message.id, code, "Not now.", 0)  # type: ignore[union-attr]
        else:
            yield message

    return tamper


def ask_raw(person: Person, build: Request) -> Heard:
    """A request past the core, by somebody whose program is their own; its answer."""
    answers: list[Heard] = []
    number = 2**32 - 1

    def listen(message: Heard) -> Iterable[Heard]:
        if getattr(message, "id", 0) == number:
            answers.append(message)
        else:
            yield message

    assert person.link is not None
    before, person.link._tamper = person.link._tamper, listen
    person.link.send(encode_frame(encode_message(build(number))))
    person.receive()
    assert person.link is not None
    person.link._tamper = before
    (answer,) = answers
    return answer


def bundle_of(thief: Person, username: str) -> Bundle:
    """Somebody's prekeys, claimed by `thief`."""
    answer = ask_raw(thief, lambda number: to_relay.Claim(number, username, 1))
    assert isinstance(answer, to_client.Claimed)
    one_time = Prekey.decode(answer.one_time_prekey) if answer.one_time_prekey else None
    return Bundle(
        Identity.decode(answer.identity),
        answer.identity_signature,
        Prekey.decode(answer.signed_prekey),
        Prekey.decode(answer.kem_prekey),
        one_time,
    )


def session_with(person: Person, username: str, started_ms: int) -> Session:
    """A session by `person`'s keys that their core knows nothing of."""
    return Session.initiate(
        person.core._ctx.me,
        bundle_of(person, username),
        started_ms,
        person.now,
        person.core._ctx.random,
    )


def known_session(person: Person, username: str) -> Session:
    """The session that `person`'s core sends on."""
    session = person.core._parts.devices.sessions((username, 1)).choose(person.now)
    assert session is not None
    return session


def submit(person: Person, username: str, envelope: bytes, device: int = 1) -> None:
    """An envelope past the core."""
    answer = ask_raw(person, lambda n: to_relay.Submit(n, username, device, envelope, b""))
    assert isinstance(answer, to_client.Submitted), answer


def forge(person: Person, session: Session, content: Content) -> tuple[Session, bytes]:
    """What a contact with a program of their own sends."""
    return session.encrypt(encode_content(content), person.core._ctx.random)
