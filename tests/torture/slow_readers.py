"""Nobody's slowness costs another: readers that stop, in a busy room and before a full mailbox."""

from pathlib import Path
from typing import Final

from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, lengthen
from saltline.protocol.content import RoomKind
from saltline.protocol.to_client import Deliver, HistoryPage, Posted, RoomEntry, Submitted
from saltline.protocol.to_relay import Acknowledge, History, Submit
from tests.server.wire_client import LOBBY, WireClient
from tests.torture.honest import Visitors
from tests.torture.measured import MeasuredRelay, Waits, close_all
from tests.torture.trial import Figures, Scale

_MEMORY_MAX_MIB: Final = 50.0
_LONG_TEXT: Final = 60_000
_ENVELOPE_BYTES: Final = 250_000
_PROBES: Final = 60
_QUESTIONS: Final = 60
_WHO_CATCH_UP: Final = 5
_AT_ONCE: Final = 4


class _Slow(WireClient):
    """Somebody whose computer takes little, and who stops to read."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name, receive_buffer=65_536)
        self.keys: IdentityKeys = self.register()


class _Room:
    """A member who writes, and one who reads: how long a text takes between them."""

    def __init__(self, relay: MeasuredRelay) -> None:
        self.author = WireClient(relay.port, "author")
        self.witness = WireClient(relay.port, "witness")
        self._keys = self.author.register()
        self.author.join(self._keys)
        witness_keys = self.witness.register()
        self.witness.join(witness_keys)
        self.said: list[bytes] = []

    def say(self, size: int) -> None:
        text = b"%d " % len(self.said) + b"x" * size
        self.said.append(text)
        self.author.post(self._keys, text)
        assert self.witness.hear() == text
        self.author.expect(Posted)
        self.author.aside.clear()

    def probe(self) -> None:
        self.say(100)


def run(scale: Scale, folder: Path) -> Figures:
    """Stop reading, be written to, and read on."""
    # Nobody here pings, and who writes 24 MB at once is not to be told to wait.
    limits = {"silence_max_s": 3600.0, "requests_burst": 100_000}
    with MeasuredRelay(folder, limits=limits) as relay:
        relay.start()
        room = _Room(relay)
        usual = Waits.of(room.probe, _PROBES)
        idle = [_Slow(relay.port, f"idle{number}") for number in range(scale.of(10, 100))]
        owners = [_Slow(relay.port, f"owner{number}") for number in range(scale.of(1, 3))]
        for slow in idle:
            slow.join(slow.keys)
        for number, slow in enumerate(idle):
            room.author.submit(slow.name, b"private %d" % number)
        visitors = Visitors(relay)
        with visitors.throughout():
            mail = _fill(room.author, owners, scale.of(20, 400))
        relay.begin_to_measure()

        for _ in range(scale.of(160, 400)):
            room.say(_LONG_TEXT)
        # They come later, so that no entry waits for them: only answers, of three long texts each.
        asking = [_Slow(relay.port, f"asking{number}") for number in range(scale.of(10, 50))]
        for slow in asking:
            slow.join(slow.keys)
            slow.say(*(History(slow.next_id(), LOBBY, 0, 3) for _ in range(_QUESTIONS)))
        asked = Waits.of(room.probe, 2 * _PROBES)  # until none of them takes any more
        asked.median_is_usual(usual, scale)
        meanwhile = Waits.of(room.probe, _PROBES)
        meanwhile.are_usual(usual, scale)
        growth_mib = relay.peak_growth_mib
        assert growth_mib <= _MEMORY_MAX_MIB, f"{growth_mib} MiB"

        missed = sum(
            _reads_on(slow, number, room, catches_up=number < _WHO_CATCH_UP)
            for number, slow in enumerate(idle)
        )
        assert missed, "nobody was so slow that the relay pushed no more"
        for _ in range(_QUESTIONS):  # the others leave without an answer
            asking[0].expect(HistoryPage)
        with visitors.throughout():
            for owner in owners:
                _empties(owner, mail)
        visitors.were_served(scale)
        relay.is_well()
        close_all((*idle, *asking, *owners, room.author, room.witness))
    return {
        "readers that stop": len(idle) + len(asking),
        "mailboxes of MB": f"{len(owners)} of {mail * _ENVELOPE_BYTES // 1_000_000}",
        "memory, MiB": growth_mib,
        "usual latency (median/p95)": usual.told(),
        "while they asked": asked.told(),
        "while they did not read": meanwhile.told(),
        "visits while mailboxes were filled and fetched": visitors.told(),
        "entries caught up by number": missed,
        "private messages lost": 0,
    }


def _fill(author: WireClient, owners: list[_Slow], count: int) -> int:
    """Of each owner the mailbox, while they do not read."""
    for owner in owners:
        for first in range(0, count, _AT_ONCE):
            numbers = range(first, min(count, first + _AT_ONCE))
            envelopes = [b"%d " % number + bytes(_ENVELOPE_BYTES - 8) for number in numbers]
            author.say(*(Submit(author.next_id(), owner.name, 1, each, b"") for each in envelopes))
            for _ in numbers:
                author.expect(Submitted)
    return count


def _reads_on(slow: _Slow, number: int, room: _Room, *, catches_up: bool) -> int:
    """It hears of the newest entry, may ask for what it missed, and has its private message.

    Returns how many entries it had missed.
    """
    newest = b"%d " % (len(room.said) - 1)
    texts: dict[int, bytes] = {}
    heard = b""
    while not heard.startswith(newest):
        entry = slow.expect(RoomEntry)
        whole = lengthen(entry.statement, EMPTY_HISTORY)
        heard = texts[entry.number] = _text_of(whole)
    missed = max(texts) - min(texts) + 1 - len(texts)
    after = min(texts)
    while catches_up and after < max(texts):
        slow.say(History(slow.next_id(), LOBBY, after, 200))
        page = slow.expect(HistoryPage)
        assert page.entries, f"history ends at {after}"
        for entry in page.entries:
            assert entry.number == after + 1
            after = entry.number
            texts.setdefault(entry.number, _text_of(entry.statement))
    if catches_up:
        all_heard = [text for _, text in sorted(texts.items()) if text]
        assert all_heard == room.said[-len(all_heard) :]
    assert slow.fetch() == b"private %d" % number
    return missed


def _text_of(statement: bytes) -> bytes:
    said = RoomStatement.decode(statement, 1_000_000)
    return said.body if said.kind == RoomKind.TEXT else b""


def _empties(owner: _Slow, count: int) -> None:
    """Everything that waited, once and in order."""
    for number in range(count):
        delivered = owner.expect(Deliver)
        assert delivered.envelope.startswith(b"%d " % number)
        owner.say(Acknowledge((delivered.number,), b""))
