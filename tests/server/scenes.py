"""People who have come in already, and short questions to them and to their relay."""

from saltline.crypto.signatures import RoomStatement
from saltline.protocol.content import RoomKind
from saltline.protocol.messages import ClientMessage
from saltline.protocol.to_client import Deliver, Error, HistoryPage, LookedUp
from saltline.protocol.to_relay import Acknowledge, History, Lookup, LookupName
from saltline.server.administration import Code, CreateInvite, ResetUser
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay


def registered(relay: MemoryRelay, *names: str) -> list[Person]:
    """People with an account, logged in, who have taken everything that came."""
    people = [Person(relay, name) for name in names]
    for person in people:
        person.register()
        person.take()
    return people


def members(relay: MemoryRelay, *names: str, room: str = "#lobby") -> list[Person]:
    """The same, members of a room, in the order of their names."""
    people = registered(relay, *names)
    for person in people:
        person.join(room)
    for person in people:
        person.take()
    return people


def refused(person: Person, request: ClientMessage) -> Error:
    """Send a request whose only answer is an error."""
    person.connection.send(request)
    error = person.connection.take_one(Error)
    assert error.id == getattr(request, "id", 0)
    return error


# --- mail ----------------------------------------------------------------------------------------


def acknowledge(person: Person, *numbers: int) -> None:
    person.connection.send(Acknowledge(numbers, b""))


def delivered(person: Person) -> list[tuple[int, bytes]]:
    """Numbers and envelopes that came since the last time; the rest is dropped."""
    return [(each.number, each.envelope) for each in person.connection.take_all(Deliver)]


def waiting(relay: MemoryRelay) -> int:
    """How many envelopes are on the relay's disk."""
    return count_rows(relay, "envelope")


# --- rooms ---------------------------------------------------------------------------------------


def history(person: Person, room: str = "#lobby", after: int = 0, limit: int = 200) -> HistoryPage:
    person.connection.send(History(person.next_id(), room, after, limit))
    return person.connection.take_one(HistoryPage)


def texts(page: HistoryPage) -> list[str]:
    """The texts of a page, without what joined and left."""
    statements = [RoomStatement.decode(entry.statement, 70_000) for entry in page.entries]
    return [each.body.decode() for each in statements if each.kind == RoomKind.TEXT]


# --- the relay -----------------------------------------------------------------------------------


def log_of(person: Person, username: str) -> tuple[bytes, ...]:
    """An account's key log entries, as the relay tells them to `person`."""
    person.take()
    person.connection.send(Lookup(person.next_id(), (LookupName(username, 0),)))
    (page,) = person.connection.take_one(LookedUp).accounts
    assert page.total == len(page.entries)
    return page.entries


def invite(relay: MemoryRelay, uses: int = 1) -> str:
    """A code for new accounts, good for a day."""
    code = relay.admin(CreateInvite(uses, relay.now_ms + DAY_MS))
    assert isinstance(code, Code)
    return code.code


def reset_code(relay: MemoryRelay, username: str) -> str:
    """A code for a new beginning of an account, good for a day."""
    code = relay.admin(ResetUser(username, relay.now_ms + DAY_MS))
    assert isinstance(code, Code)
    return code.code


def count_rows(relay: MemoryRelay, table: str) -> int:
    """How many rows a table of the relay's database has."""
    count = relay.database._database.execute(f"SELECT count(*) FROM {table}").get
    assert isinstance(count, int)
    return count
