"""Handing work to a thread that sleeps in a selector."""

import os
import selectors
import threading

import pytest

from saltline.server.wakeup import Inbox, Wakeup

KINDS = [False] + ([True] if hasattr(os, "eventfd") else [])


def readable(wakeup: Wakeup) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(wakeup, selectors.EVENT_READ)
        return bool(selector.select(0))


@pytest.mark.parametrize("with_eventfd", KINDS)
def test_a_wake_up_is_seen_once(with_eventfd: bool) -> None:
    wakeup = Wakeup(with_eventfd=with_eventfd)
    assert not readable(wakeup)
    wakeup.wake()
    wakeup.wake()
    assert readable(wakeup)
    wakeup.clear()
    assert not readable(wakeup)
    wakeup.clear()
    wakeup.close()


@pytest.mark.parametrize("with_eventfd", KINDS)
def test_waking_never_blocks_however_often(with_eventfd: bool) -> None:
    wakeup = Wakeup(with_eventfd=with_eventfd)
    for _ in range(20_000):  # more than a pipe holds
        wakeup.wake()
    assert readable(wakeup)
    wakeup.close()


@pytest.mark.parametrize("with_eventfd", KINDS)
def test_closing_gives_the_descriptors_back(with_eventfd: bool) -> None:
    wakeup = Wakeup(with_eventfd=with_eventfd)
    descriptor = wakeup.fileno()
    wakeup.close()
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_a_busy_owner_is_not_woken_and_finds_the_work_before_it_sleeps() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.post("first")
    assert not readable(inbox.wakeup)
    assert not inbox.about_to_sleep()
    assert inbox.take() == ["first"]
    assert inbox.about_to_sleep()
    inbox.post("second")
    assert readable(inbox.wakeup)
    inbox.wakeup.close()


def test_nothing_is_lost_or_reordered_between_threads() -> None:
    inbox: Inbox[tuple[int, int]] = Inbox()
    posters, each = 4, 2_000

    def post(poster: int) -> None:
        for number in range(each):
            inbox.post((poster, number))

    threads = [threading.Thread(target=post, args=(poster,)) for poster in range(posters)]
    seen: list[tuple[int, int]] = []
    with selectors.DefaultSelector() as selector:
        selector.register(inbox.wakeup, selectors.EVENT_READ)
        for thread in threads:
            thread.start()
        while len(seen) < posters * each:
            if inbox.about_to_sleep():
                assert selector.select(10), "the owner was not woken"
                inbox.wakeup.clear()
            inbox.awake()
            seen += inbox.take()
    for thread in threads:
        thread.join()
    inbox.wakeup.close()
    for poster in range(posters):
        assert [number for who, number in seen if who == poster] == list(range(each))
