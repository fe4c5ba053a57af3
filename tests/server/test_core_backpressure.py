"""Who asks faster than can be done, or goes on after a refusal, is not read for a while."""

from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import Error, Submitted
from saltline.protocol.to_relay import Claim, Ping
from saltline.server.core import REFUSALS_PER_SECOND
from saltline.server.effects import Pause, Resume
from saltline.server.settings import Settings
from tests.server.person import Person
from tests.server.relay_harness import MemoryRelay


def test_who_asks_faster_than_the_disk_can_do_is_not_read_on() -> None:
    relay = MemoryRelay(settings=Settings(waiting_per_connection_bytes=20_000))
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    ada.take()
    relay.hold()
    for _ in range(10):
        ada.submit(bob, b"x" * 2_000)
    assert ada.connection.is_paused
    assert not bob.connection.is_paused
    relay.release()
    assert not ada.connection.is_paused
    assert len(ada.connection.take_all(Submitted)) == 10
    pauses = [effect for effect in relay.effects if isinstance(effect, Pause | Resume)]
    assert pauses[-1] == Resume(ada.connection.number)


def test_many_small_operations_wait_no_longer_than_as_many_messages() -> None:
    relay = MemoryRelay(settings=Settings(waiting_per_connection_bytes=40_000))
    ada = Person(relay, "ada")
    ada.register()
    rooms = [f"#room{number}" for number in range(12)]
    for room in rooms:
        ada.join(room)
    ada.take()
    relay.hold()
    for room in rooms[:8]:
        ada.connection.send(ada.post_request(room, ada.statement(RoomKind.TEXT, b"x")))
    assert not ada.connection.is_paused
    for room in rooms[8:]:
        ada.connection.send(ada.post_request(room, ada.statement(RoomKind.TEXT, b"x")))
    assert ada.connection.is_paused
    relay.release()
    assert not ada.connection.is_paused


def test_of_a_claim_that_waits_its_answer_counts() -> None:
    relay = MemoryRelay(settings=Settings(waiting_per_connection_bytes=20_000))
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    relay.hold()
    for _ in range(5):
        ada.connection.send(Claim(ada.next_id(), "bob", 1))
    assert ada.connection.is_paused
    relay.release()
    assert not ada.connection.is_paused


def test_all_together_cannot_fill_the_memory() -> None:
    settings = Settings(waiting_in_all_bytes=20_000)
    relay = MemoryRelay(settings=settings)
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    relay.hold()
    ada.submit(bob, b"x" * 30_000)
    assert ada.connection.is_paused
    bob.submit(ada, b"x")
    assert bob.connection.is_paused
    relay.release()
    assert not ada.connection.is_paused
    assert not bob.connection.is_paused


def test_a_paused_connection_is_not_taken_for_a_silent_one() -> None:
    settings = Settings(waiting_per_connection_bytes=1_000, silence_max_s=90)
    relay = MemoryRelay(settings=settings)
    ada = Person(relay, "ada")
    ada.register()
    ada.take()
    relay.hold()
    ada.submit(ada, b"x" * 2_000)
    relay.advance(100_000)
    assert ada.connection.is_open
    relay.release()
    relay.advance(89_000)
    assert ada.connection.is_open
    relay.advance(11_000)
    assert not ada.connection.is_open


def ask_too_much(person: Person, times: int) -> list[int]:
    """The waits that it was told, in ms."""
    person.connection.send(*[Ping(number) for number in range(1, times + 1)])
    errors = person.connection.take_all(Error)
    assert {error.code for error in errors} <= {ErrorCode.RATE_LIMITED}
    return [error.retry_after_ms for error in errors]


def test_who_goes_on_after_many_refusals_is_read_again_in_the_next_second() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=10, requests_burst=10))
    ada = Person(relay, "ada")
    ada.register()
    relay.advance(1_000)
    for _ in range(3):
        before = len(relay.effects)
        assert len(ask_too_much(ada, 10 + REFUSALS_PER_SECOND - 1)) == REFUSALS_PER_SECOND - 1
        assert not ada.connection.is_paused
        assert min(ask_too_much(ada, 1)) >= 1
        assert ada.connection.is_paused
        assert len(ask_too_much(ada, 20)) == 20, "what the edge had read before is answered, too"
        relay.advance(1_000)
        assert not ada.connection.is_paused
        pauses = [each for each in relay.effects[before:] if isinstance(each, Pause | Resume)]
        assert pauses == [Pause(ada.connection.number), Resume(ada.connection.number)]
    assert ask_too_much(ada, 1) == []


def test_who_is_refused_now_and_then_is_always_read() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=10, requests_burst=10))
    ada = Person(relay, "ada")
    ada.register()
    for _ in range(5):
        ask_too_much(ada, REFUSALS_PER_SECOND - 1)
        relay.advance(1_000)
    assert not any(isinstance(effect, Pause) for effect in relay.effects)


def test_two_reasons_not_to_read_are_over_only_together() -> None:
    settings = Settings(
        requests_per_second=1, requests_burst=20, waiting_per_connection_bytes=20_000
    )
    relay = MemoryRelay(settings=settings)
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.register()
    bob.register()
    for is_work_first_over in (True, False):
        relay.advance(20_000)
        ada.take()
        relay.hold()
        ada.submit(bob, bytes(30_000))
        ask_too_much(ada, 20 + REFUSALS_PER_SECOND)
        assert ada.connection.is_paused
        for is_work in (is_work_first_over, not is_work_first_over):
            assert ada.connection.is_paused
            if is_work:
                relay.release()
            else:
                relay.advance(1_000)
        assert not ada.connection.is_paused


def test_who_leaves_while_it_is_not_read_is_forgotten() -> None:
    relay = MemoryRelay(settings=Settings(requests_per_second=10, requests_burst=10))
    ada = Person(relay, "ada")
    ada.register()
    ask_too_much(ada, 10 + REFUSALS_PER_SECOND)
    ada.connection.cut()
    before = len(relay.effects)
    relay.advance(1_000)
    assert not any(isinstance(effect, Resume) for effect in relay.effects[before:])
