"""Nobody's slowness costs another: readers that stop, in a busy room and before a full mailbox."""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import EMPTY_HISTORY, RoomStatement, lengthen
from saltline.protocol.content import RoomKind
from saltline.protocol.limits import PAGE_MAX_ENTRIES
from saltline.protocol.to_client import Deliver, Error, HistoryPage, Posted, RoomEntry, Submitted
from saltline.protocol.to_relay import Acknowledge, History, Submit
from tests.server.wire_client import LOBBY, WireClient
from tests.torture.companions import Bystanders
from tests.torture.honest import Visitors
from tests.torture.measured import MeasuredRelay, Waits, close_all
from tests.torture.trial import Figures, Scale

_MEMORY_MAX_MIB: Final = 50.0
_TURNS_S: Final = 0.012  # some of a long text to a hundred
_MAIL_MEDIAN_S: Final = 0.003  # of four letters of 250 KB at a time
_MAIL_P95_S: Final = 0.010
_OWN_S: Final = 0.002  # a long text itself takes longer than a short one
_PAGES_S: Final = 0.002  # of two pages at a time
_LONG_TEXT: Final = 60_000
_ENVELOPE_BYTES: Final = 250_000
_PROBES: Final = 60
_QUESTIONS: Final = 60
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
    with MeasuredRelay(folder, limits=limits) as relay, ExitStack() as stack:
        relay.start()
        others = stack.enter_context(Bystanders(relay))
        cache_mib = relay.fill_cache() if scale is Scale.LONG else 0.0
        room = _Room(relay)
        with others.watching() as usual_outside:
            usual = Waits.of(room.probe, scale.of(1, 50) * _PROBES)
        relay.begin_to_measure()

        idle = [_Slow(relay.port, f"idle{number}") for number in range(scale.of(10, 100))]
        owners = [_Slow(relay.port, f"owner{number}") for number in range(scale.of(1, 3))]
        for slow in idle:
            slow.join(slow.keys)
        for number, slow in enumerate(idle):
            room.author.submit(slow.name, b"private %d" % number)
        visitors = Visitors(relay)
        with visitors.throughout(), others.watching() as filled_outside:
            mail = _fill(room.author, owners, scale.of(20, 400))
        with others.watching() as stored_outside:
            stored = Waits.of(lambda: room.say(_LONG_TEXT), scale.of(160, 400))
        # They come later, so that no entry waits for them: only answers, of three long texts each.
        asking = [_Slow(relay.port, f"asking{number}") for number in range(scale.of(10, 50))]
        with others.watching() as asked_outside:
            for slow in asking:
                slow.join(slow.keys)
                slow.say(*(History(slow.next_id(), LOBBY, 0, 3) for _ in range(_QUESTIONS)))
            asked = Waits.of(room.probe, 2 * _PROBES)  # until none of them takes any more
        with others.watching() as outside:
            meanwhile = Waits.of(room.probe, scale.of(1, 50) * _PROBES)
        growth_mib = relay.peak_growth_mib

        for slow in asking:
            _has_its_pages(slow)
        missed = sum(_reads_on(slow, number, room) for number, slow in enumerate(idle))
        with visitors.throughout():
            for owner in owners:
                _empties(owner, mail)
        visitors.were_served(scale)
        relay.is_well()
        others.end()
        close_all((*idle, *asking, *owners, room.author, room.witness))
    assert growth_mib <= _MEMORY_MAX_MIB, f"{growth_mib} MiB"
    meanwhile.are_usual(usual, scale)
    outside.are_usual(usual_outside, scale)
    # While the slow are still being written to, or ask for pages, others wait for those turns.
    filled_outside.are_usual(
        usual_outside, scale, median_more_s=_MAIL_MEDIAN_S, p95_more_s=_MAIL_P95_S
    )
    stored.are_usual(usual, scale, median_more_s=_OWN_S, p95_more_s=_TURNS_S)
    stored_outside.are_usual(usual_outside, scale, p95_more_s=_TURNS_S)
    asked.are_usual(usual, scale, median_more_s=_PAGES_S, p95_more_s=2 * _PAGES_S)
    asked_outside.are_usual(usual_outside, scale, median_more_s=_PAGES_S, p95_more_s=2 * _PAGES_S)
    return {
        "readers that stop": len(idle) + len(asking),
        "mailboxes of MB": f"{len(owners)} of {mail * _ENVELOPE_BYTES // 1_000_000}",
        "memory, MiB": growth_mib,
        "usual latency in the room (median/p95)": usual.told(),
        "long texts in the room": stored.told(),
        "in the room while they asked": asked.told(),
        "in the room while they did not read": meanwhile.told(),
        "usual latency of others, letters and texts": usual_outside.told(),
        "others while mailboxes filled": filled_outside.told(),
        "others while long texts came": stored_outside.told(),
        "others while they asked": asked_outside.told(),
        "others while they did not read": outside.told(),
        "visits while mailboxes were filled and fetched": visitors.told(),
        "the database's cache before, MiB": cache_mib,
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


def _reads_on(slow: _Slow, number: int, room: _Room) -> int:
    """As docs/protocol.md has it (§6, Rooms): it hears the newest entry, with a jump in numbers.

    It asks for what it missed, and has its private message. Nothing else was said to it. Returns
    how many entries it had missed.
    """
    newest = b"%d " % (len(room.said) - 1)
    texts: dict[int, bytes] = {}
    heard, jumps = b"", 0
    while not heard.startswith(newest):
        entry = slow.expect(RoomEntry)
        last = max(texts, default=entry.number - 1)
        assert entry.number > last, "an entry came late, or twice"
        jumps += entry.number != last + 1
        whole = lengthen(entry.statement, EMPTY_HISTORY)
        heard = texts[entry.number] = _text_of(whole)
    assert jumps, "the relay pushed everything to who did not read"
    missed = max(texts) - min(texts) + 1 - len(texts)
    after = min(texts)
    while after < max(texts):
        slow.say(History(slow.next_id(), LOBBY, after, PAGE_MAX_ENTRIES))
        page = slow.expect(HistoryPage)
        assert page.entries, f"history ends at {after}"
        for entry in page.entries:
            assert entry.number == after + 1
            after = entry.number
            text = _text_of(entry.statement)
            assert texts.setdefault(entry.number, text) == text
    all_heard = [text for _, text in sorted(texts.items()) if text]
    assert all_heard == room.said[-len(all_heard) :]
    assert slow.fetch() == b"private %d" % number
    assert not [each for each in slow.aside if isinstance(each, Error)], slow.aside
    return missed


def _has_its_pages(slow: _Slow) -> None:
    """All the answers that it had not read, in order: the same page, as it asked the same."""
    first = slow.request - _QUESTIONS + 1
    for id in range(first, first + _QUESTIONS):
        page = slow.expect(HistoryPage)
        assert page.id == id
        assert [each.number - page.after for each in page.entries] == [1, 2, 3]
    assert not [each for each in slow.aside if isinstance(each, Error)], slow.aside


def _text_of(statement: bytes) -> bytes:
    said = RoomStatement.decode(statement, 1_000_000)
    return said.body if said.kind == RoomKind.TEXT else b""


def _empties(owner: _Slow, count: int) -> None:
    """Everything that waited, once and in order."""
    for number in range(count):
        delivered = owner.expect(Deliver)
        assert delivered.envelope.startswith(b"%d " % number)
        owner.say(Acknowledge((delivered.number,), b""))
