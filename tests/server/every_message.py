"""What a client can send in any state, and what may come of it.

The answers and errors of each message are those of docs/protocol.md, read from its table.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from saltline.protocol import to_client, to_relay
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import ClientMessage, encode_message
from saltline.protocol.names import LOBBY
from tests.protocol.wire_values import elements, good, largest, refused, struct_type
from tests.pushes import Heard
from tests.server.connection_states import Scene
from tests.server.person import HELLO, NO_SIGNATURE, Person

MESSAGES: Final[tuple[type[Any], ...]] = get_args(ClientMessage)
PUSHED: Final = (
    to_client.Deliver,
    to_client.CaughtUp,
    to_client.RoomEntry,
    to_client.Presence,
)
FOR_STRANGERS: Final = (
    to_client.Challenge,
    to_client.Invited,
    to_client.Welcome,
    to_client.Error,
)
# Any request may get these: docs/protocol.md §6, above the table of messages.
ANY_REQUEST: Final = {
    ErrorCode.BAD_MESSAGE,
    ErrorCode.UNSUPPORTED_VERSION,
    ErrorCode.TOO_EARLY,
    ErrorCode.RATE_LIMITED,
    ErrorCode.STORAGE_FAILED,
    ErrorCode.STOPPING,
}
# "What ends the connection", there.
ENDS_A_STRANGER_NOT: Final = {
    ErrorCode.BAD_NAME,
    ErrorCode.NAME_TAKEN,
    ErrorCode.INVITE_NEEDED,
    ErrorCode.BAD_INVITE,
}
ENDS_A_USER: Final = {
    ErrorCode.BAD_FRAME,
    ErrorCode.FRAME_TOO_LARGE,
    ErrorCode.BAD_MESSAGE,
    ErrorCode.UNSUPPORTED_VERSION,
    ErrorCode.TOO_SLOW,
    ErrorCode.REPLACED,
    ErrorCode.REMOVED,
}


def _documented() -> dict[str, tuple[str, set[str]]]:
    """For each message: its answer, and its errors besides those of every request."""
    text = (Path(__file__).parents[2] / "docs/protocol.md").read_text("utf-8")
    table = text.partition("### Messages to the relay")[2].partition("### Messages to the client")
    rows = re.findall(r"^\| `(\w+)` \(`\w+`\) \|[^|]*\|([^|]*)\|([^|]*)\|$", table[0], re.M)
    return {
        name: (answer.strip().strip("`"), set(re.findall(r"`(\w+)`", errors)))
        for name, answer, errors in rows
    }


DOCUMENTED: Final = _documented()


# --- messages -------------------------------------------------------------------------------------


def _register(_scene: Scene, eve: Person) -> to_relay.Register:
    if eve.connection.bodies:
        return eve.registration(eve.entry())
    return to_relay.Register(eve.username, eve.entry().encode(), NO_SIGNATURE, "")


def _login(_scene: Scene, eve: Person) -> to_relay.Login:
    if eve.connection.bodies:
        return eve.login_request((), ())
    return to_relay.Login(eve.username, 1, NO_SIGNATURE, (), ())


VALID: Final[dict[type[Any], Callable[[Scene, Person], Any]]] = {
    to_relay.Hello: lambda scene, eve: HELLO,
    to_relay.CheckInvite: lambda scene, eve: to_relay.CheckInvite(eve.next_id(), scene.code),
    to_relay.Register: _register,
    to_relay.Login: _login,
    to_relay.Publish: lambda scene, eve: to_relay.Publish(eve.next_id(), scene.prekeys(eve)),
    to_relay.Lookup: lambda scene, eve: to_relay.Lookup(
        eve.next_id(), (to_relay.LookupName("ada", 0),)
    ),
    to_relay.Claim: lambda scene, eve: to_relay.Claim(eve.next_id(), "ada", 1),
    to_relay.Submit: lambda scene, eve: to_relay.Submit(eve.next_id(), "ada", 1, b"sealed", b""),
    to_relay.Acknowledge: lambda scene, eve: to_relay.Acknowledge((), b""),
    to_relay.Join: lambda scene, eve: eve.join_request("#garden", eve.statement(RoomKind.JOIN)),
    to_relay.Post: lambda scene, eve: eve.post_request(LOBBY, eve.statement(RoomKind.TEXT, b"hi")),
    to_relay.History: lambda scene, eve: to_relay.History(eve.next_id(), LOBBY, 0, 200),
    to_relay.Who: lambda scene, eve: to_relay.Who(eve.next_id(), LOBBY),
    to_relay.ListRooms: lambda scene, eve: to_relay.ListRooms(eve.next_id()),
    to_relay.Ping: lambda scene, eve: to_relay.Ping(eve.next_id()),
}


def variants(message: Any, turn: int) -> list[tuple[bytes, bool]]:
    """The message, encoded, and with each field off; and whether it is still of the protocol.

    A field is once the smallest and once the largest that fits. What does not fit is refused before
    any state is looked at, so that one will do: `turn` chooses which.
    """
    kind = struct_type(type(message))
    fields: list[Any] = msgspec.msgpack.decode(encode_message(message))[1:]

    def changed(place: int, value: Any) -> bytes:
        return msgspec.msgpack.encode(
            elements(kind, [*fields[:place], value, *fields[place + 1 :]])
        )

    place = turn % len(fields)
    wrong = list(refused(kind.fields[place].type))
    found = [(encode_message(message), True), (changed(place, wrong[turn % len(wrong)]), False)]
    for place, field in enumerate(kind.fields):
        for value in (good(field.type), largest(field.type, 1)):
            if value != fields[place]:
                found.append((changed(place, value), True))
    return found


# --- what may come of it --------------------------------------------------------------------------


def check_answers(
    message: type[Any], number: int, came: list[Heard], *, fits: bool, owed: int = 0
) -> None:
    """What came on a connection that was open is one documented answer to one message.

    `number` is the message's id, or 0; `owed` is how many earlier requests may be answered too.
    """
    answers = [each for each in came if not isinstance(each, PUSHED)]
    assert len(answers) <= 1 + owed, f"answered more than once: {answers}"
    answer, errors = DOCUMENTED[message.__name__]
    allowed = {*ANY_REQUEST, *map(ErrorCode, errors)} if fits else ANY_REQUEST
    mine = [each for each in answers if getattr(each, "id", 0) == number]
    assert len(mine) <= 1 + owed
    for each in mine:
        if isinstance(each, to_client.Error):
            assert each.code in allowed, f"{message.__name__} is not documented to get {each.code}"
            assert each.detail and each.detail.isprintable()
        elif not owed:
            assert type(each).__name__ == answer
    if answer == "none" and not any(isinstance(each, to_client.Error) for each in answers):
        assert len(answers) <= owed
    elif not owed:
        assert len(answers) == 1, "not answered"


def ends_the_connection(error: to_client.Error, is_user: bool, message: type[Any]) -> bool:
    """What docs/protocol.md says of an error."""
    if not is_user:
        return error.code not in ENDS_A_STRANGER_NOT
    if error.code == ErrorCode.RATE_LIMITED and message is to_relay.Acknowledge:
        return True
    return error.code in ENDS_A_USER or (error.code == ErrorCode.STOPPING and not error.id)
