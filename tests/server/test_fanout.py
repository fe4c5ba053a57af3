"""Gathering broadcasts: one buffer for many, and everybody's order as it was."""

import random
from collections.abc import Sequence

from saltline.server.connection import WRITE_BYTES
from saltline.server.fanout import GATHERED_MIN_READERS, GATHERINGS_MAX, Fanout

MANY = list(range(100, 100 + 2 * GATHERED_MIN_READERS))
FEW = list(range(100, 100 + GATHERED_MIN_READERS - 1))


class Queues:
    """What each connection has in its output queue."""

    def __init__(self) -> None:
        self.puts: list[tuple[int, bytes]] = []
        self.alone: list[bool] = []  # whether nothing else was to come, for each broadcast

    def put(self, number: int, data: bytes) -> None:
        self.puts.append((number, data))

    def put_all(self, numbers: Sequence[int], data: bytes, is_all: bool) -> None:
        self.alone.append(is_all)
        for number in numbers:
            self.put(number, data)

    def of(self, number: int) -> bytes:
        return b"".join(data for each, data in self.puts if each == number)


def test_many_readers_share_one_buffer() -> None:
    queues = Queues()
    fanout = Fanout(queues.put, queues.put_all)
    for frame in (b"one ", b"two ", b"three"):
        fanout.broadcast(MANY, frame)
    assert queues.puts == []
    fanout.end()
    assert [number for number, _ in queues.puts] == MANY
    assert {id(data) for _, data in queues.puts} == {id(queues.puts[0][1])}
    assert queues.of(MANY[0]) == b"one two three"


def test_few_readers_get_each_frame_at_once() -> None:
    queues = Queues()
    fanout = Fanout(queues.put, queues.put_all)
    fanout.broadcast(FEW, b"one")
    assert [queues.of(number) for number in FEW] == [b"one"] * len(FEW)


def test_what_is_for_one_stands_where_it_was_sent() -> None:
    queues = Queues()
    fanout = Fanout(queues.put, queues.put_all)
    author, other, stranger = MANY[3], MANY[4], 7
    fanout.broadcast(MANY, b"a")
    fanout.send(author, b"posted a ")
    fanout.send(stranger, b"hello")
    fanout.broadcast(MANY, b"b")
    fanout.send(author, b"posted b ")
    fanout.broadcast(MANY, b"c")
    fanout.end()
    assert queues.of(author) == b"aposted a bposted b c"
    assert queues.of(other) == b"abc"
    assert queues.of(stranger) == b"hello"


def test_a_room_that_shrinks_or_grows_keeps_its_order() -> None:
    queues = Queues()
    fanout = Fanout(queues.put, queues.put_all)
    grown = [*MANY, 999]
    fanout.broadcast(MANY, b"1")
    fanout.broadcast(grown, b"2")
    fanout.broadcast(FEW, b"3")
    fanout.end()
    assert queues.of(FEW[0]) == b"123"
    assert queues.of(MANY[-1]) == b"12"
    assert queues.of(999) == b"2"


def test_what_was_for_fewer_is_not_overtaken_by_a_full_buffer() -> None:
    """Who is in a room sees its entries in order while others come into it."""
    queues = Queues()
    fanout = Fanout(queues.put, queues.put_all)
    full = bytes(WRITE_BYTES)
    fanout.broadcast(MANY, b"1")
    fanout.broadcast([*MANY, 999], full)
    fanout.broadcast([*MANY, 999, 1000], b"3")
    fanout.end()
    assert queues.of(MANY[0]) == b"1" + full + b"3"
    assert queues.of(999) == full + b"3"


def test_a_buffer_is_no_longer_than_a_write() -> None:
    queues = Queues()
    fanout = Fanout(queues.put, queues.put_all)
    frame = bytes(WRITE_BYTES // 4)
    for _ in range(10):
        fanout.broadcast(MANY, frame)
    fanout.end()
    assert [len(data) for number, data in queues.puts if number == MANY[0]] == [
        WRITE_BYTES,
        WRITE_BYTES,
        WRITE_BYTES // 2,
    ]


def test_what_else_comes_for_many_in_the_same_turn_is_waited_for() -> None:
    queues = Queues()
    fanout = Fanout(queues.put, queues.put_all)
    fanout.broadcast(MANY, b"alone")
    fanout.end()
    fanout.broadcast(MANY, b"one of")
    fanout.broadcast([*MANY, 999], b"two rooms")
    fanout.end()
    fanout.broadcast(MANY, bytes(WRITE_BYTES))
    fanout.broadcast(MANY, b"the rest")
    fanout.end()
    assert queues.alone == [True, False, False, False, True]


def test_any_mixture_keeps_the_order_of_each_room_and_of_answers() -> None:
    """Every reader sees each room's frames in order, and its own answers in their place."""
    dice = random.Random(5)
    sizes = {"a": 10, "b": 15, "c": 40, "d": 60, **{f"r{n}": 30 for n in range(GATHERINGS_MAX)}}
    # Each room grows by two in the middle.
    rooms = {name: [list(range(size)), list(range(size + 2))] for name, size in sizes.items()}
    for _ in range(20):
        queues = Queues()
        fanout = Fanout(queues.put, queues.put_all)
        sent: list[tuple[str, set[int]]] = []
        for step in range(200):
            reader = dice.randrange(64)
            if dice.random() < 0.4:
                sent.append(("answer", {reader}))
                fanout.send(reader, b"%d " % step)
            else:
                room = dice.choice(list(rooms))
                audience = rooms[room][step // 100]
                sent.append((room, set(audience)))
                fanout.broadcast(audience, b"%d " % step)
        fanout.end()
        for reader in range(64):
            got = [int(step) for step in queues.of(reader).split()]
            assert sorted(got) == [n for n, (_, readers) in enumerate(sent) if reader in readers]
            for room in rooms:
                ordered = [step for step in got if sent[step][0] in (room, "answer")]
                assert ordered == sorted(ordered)
