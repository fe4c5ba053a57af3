"""What comes a second time, because the word of the first time was lost: looked for at the core."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field
from hashlib import sha256
from typing import Any, Self
from unittest.mock import patch

from saltline.client.vault.keys import KeyStore
from saltline.protocol.limits import MESSAGE_ID_BYTES
from saltline.protocol.to_relay import Post, Submit
from saltline.server.mailboxes import Mailboxes
from saltline.server.rooms import Rooms


@dataclass(frozen=True, slots=True)
class Again:
    """How often something came that had come before, in all or in between."""

    submitted: int
    posted: int
    pushed: int
    known: int  # deliveries that a client had taken in: the word that it has them was lost

    def since(self, before: "Again") -> "Again":
        """What was added."""
        return Again(
            *(now - then for now, then in zip(astuple(self), astuple(before), strict=True))
        )


@dataclass
class Repeats:
    """Every relay and client of this process that is opened while it watches."""

    submitted: Counter[bytes] = field(default_factory=Counter)  # by the hash of the envelope
    posted: Counter[bytes] = field(default_factory=Counter)  # by message id
    pushed: Counter[tuple[int, int]] = field(default_factory=Counter)  # by mailbox and number
    known: int = 0

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator[Self]:
        """Until the block ends."""
        seen = cls()
        submit, post, push = Mailboxes.submit, Rooms.post, Mailboxes._push
        was_seen = KeyStore.was_seen

        def noted_submit(self: Mailboxes, connection: Any, request: Submit) -> None:
            seen.submitted[sha256(request.envelope).digest()] += 1
            submit(self, connection, request)

        def noted_post(self: Rooms, connection: Any, request: Post) -> None:
            seen.posted[request.statement[1 : 1 + MESSAGE_ID_BYTES]] += 1
            post(self, connection, request)

        def noted_push(self: Mailboxes, to: Any, delivery: Any, number: int, *rest: Any) -> None:
            seen.pushed[to.known.mailbox, number] += 1
            push(self, to, delivery, number, *rest)

        def noted_look(self: KeyStore, digest: bytes) -> bool:
            is_known = was_seen(self, digest)
            seen.known += is_known
            return is_known

        with ExitStack() as stack:
            for owner, name, noted in (
                (Mailboxes, "submit", noted_submit),
                (Rooms, "post", noted_post),
                (Mailboxes, "_push", noted_push),
                (KeyStore, "was_seen", noted_look),
            ):
                stack.enter_context(patch.object(owner, name, noted))
            yield seen

    @property
    def again(self) -> Again:
        """So far."""
        return Again(
            _beyond_the_first(self.submitted),
            _beyond_the_first(self.posted),
            _beyond_the_first(self.pushed),
            self.known,
        )

    @property
    def posted_again(self) -> set[bytes]:
        """Message ids of posts whose answer was lost."""
        return {message_id for message_id, count in self.posted.items() if count > 1}


def _beyond_the_first(counts: Counter[Any]) -> int:
    return counts.total() - len(counts)
