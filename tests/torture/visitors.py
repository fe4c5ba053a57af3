"""Clients of the library, each with a profile of its own, that reach the relay through a proxy."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Self

from saltline.client.link import Link
from saltline.client.link_events import LinkEvent, Target
from saltline.client.messenger import Client
from saltline.client.model import ConnectionState, Delivery, Line, LineKind
from saltline.client.profile import Profile
from saltline.protocol.names import RelayAddress
from tests.client.programs import House
from tests.torture.ledger import Ledger
from tests.torture.proxy import Proxy
from tests.waiting import wait_until

# How long anything may take, and how soon a link tries again, in seconds.
TIMEOUT_S = 120.0
_RETRY_S = 0.01
_PAGE = 1000
_TEXT = re.compile(r"text (\d+)")


def soon(target: Target, deliver: Callable[[LinkEvent], None]) -> Link:
    """A link that does not wait long before it comes back."""
    return Link(target, deliver, first_retry_s=_RETRY_S)


@dataclass
class Visitor:
    """Somebody with an open client; what they queue goes into the ledger."""

    name: str
    client: Client
    proxy: Proxy
    ledger: Ledger
    listeners: Mapping[str, tuple[str, ...]]  # of each room: who reads it
    numbers: int = 0

    @classmethod
    @contextmanager
    def at(
        cls, house: House, name: str, ledger: Ledger, listeners: Mapping[str, tuple[str, ...]]
    ) -> Iterator[Self]:
        """A new account, online through a proxy of its own."""
        house.user(name)
        with cls.again(house, name, ledger, listeners) as visitor:
            yield visitor

    @classmethod
    @contextmanager
    def again(
        cls, house: House, name: str, ledger: Ledger, listeners: Mapping[str, tuple[str, ...]]
    ) -> Iterator[Self]:
        """Somebody who was here before."""
        profile = Profile(house.folder / name)
        with ExitStack() as stack:
            proxy = stack.enter_context(Proxy(house.address.port))
            client = Client.open(profile, profile.unlock(None), make_link=soon)
            stack.callback(client.close)
            through = replace(house.target, address=RelayAddress("127.0.0.1", proxy.port))
            client.change_relay(through)
            client.start()
            visitor = cls(name, client, proxy, ledger, listeners)
            visitor.settle()
            yield visitor

    def say(self, conversation: str) -> Line:
        """Queue the next text: from here on it must not be lost."""
        self.numbers += 1
        is_room = conversation.startswith("#")
        readers = [f"{conversation}>{each}" for each in self.listeners.get(conversation, ())]
        lanes = [f"{self.name}>{each}" for each in (readers if is_room else [conversation])]
        for lane in lanes:
            self.ledger.sent(lane, self.numbers)
        say = self.client.post if is_room else self.client.send
        line = say(conversation, f"text {self.numbers}")
        for lane in lanes:
            self.ledger.acknowledged(lane, self.numbers)
        return line

    @property
    def is_online(self) -> bool:
        return self.client.status().connection is ConnectionState.ONLINE

    def settle(self) -> None:
        """Online, and nothing left to be sent, taken in or receipted."""
        wait_until(lambda: self.is_online, f"{self.name} is online")
        self.client.when_idle().result(TIMEOUT_S)

    def has_sent_all(self) -> bool:
        """Whether the relay has all that was queued."""
        return not self.client.status().queued

    def has_relayed(self, line: Line) -> bool:
        """Whether the relay has said that it has this line."""
        found = self.client.line(line.row)
        assert found is not None and found.delivery is not Delivery.FAILED, found
        return found.delivery >= Delivery.RELAYED

    def lines(self, conversation: str) -> list[Line]:
        """The whole timeline of a conversation."""
        lines: list[Line] = []
        while page := self.client.page(
            conversation, after=lines[-1].row if lines else 0, limit=_PAGE
        ):
            lines += page
        return lines

    def tell(self, conversation: str) -> None:
        """What the timeline shows of others, for the ledger; a gap or an alarm is a failure."""
        for line in self.lines(conversation):
            assert line.kind not in (LineKind.NOTICE, LineKind.ALERT), line
            found = _TEXT.fullmatch(line.body)
            if line.kind is LineKind.TEXT and not line.mine and found:
                room = f"{conversation}>" if conversation.startswith("#") else ""
                self.ledger.shown(f"{line.author}>{room}{self.name}", int(found[1]))
