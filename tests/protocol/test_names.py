"""Names: what is allowed, what looks alike, what is reserved; addresses of relays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltline.protocol.names import (
    LOBBY,
    RESERVED_NAMES,
    BadName,
    Conversation,
    RelayAddress,
    check_room,
    check_user,
    is_reserved,
    parse_conversation,
    parse_relay_address,
    skeleton,
)

user_names = st.from_regex(r"[a-z0-9][a-z0-9_-]{1,31}", fullmatch=True)


@pytest.mark.parametrize("name", ["ada", "b0b", "0x", "a_", "a-b", "a" * 32])
def test_user_names(name: str) -> None:
    assert check_user(name) == name
    assert check_room("#" + name) == "#" + name


@pytest.mark.parametrize(
    "name",
    [
        "", "a", "a" * 33, "_ab", "-ab", "Ada", "a b", "ada\n", "ad\u0430", "\uff41da", "a.b",
        "a\x00b", "ab\u200d",
    ],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(BadName, match="2 to 32 characters"):
        check_user(name)
    with pytest.raises(BadName, match="2 to 32 characters"):
        check_room("#" + name)


@pytest.mark.parametrize("name", ["dev", "##dev", "# dev", "#Dev", "@dev"])
def test_a_room_has_one_hash_in_front(name: str) -> None:
    with pytest.raises(BadName):
        check_room(name)


def test_the_lobby_is_a_room() -> None:
    assert check_room(LOBBY) == LOBBY


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("modem", "rnodern"),
        ("warn", "vvarn"),
        ("warn", "wam"),
        ("bob", "b0b"),
        ("alice", "a1ice"),
        ("ada_l", "adal"),
        ("a-d-a", "ada_"),
        ("r-n", "m_"),
        ("v_v0w", "wovv"),
        ("vvv", "vw"),
        ("vvv", "wv"),
        ("awvvb", "avvwb"),
    ],
)
def test_names_that_look_alike_have_one_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"), [("ada", "bob"), ("nr", "m"), ("vav", "wa"), ("ab", "ba"), ("alice", "allce")]
)
def test_names_that_differ_keep_their_skeletons_apart(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


@given(user_names, st.data())
def test_a_look_alike_of_any_name_has_its_skeleton(name: str, data: st.DataObject) -> None:
    alike = {"o": "o0", "0": "0o", "l": "l1", "1": "1l", "_": "-", "-": "_"}
    pairs = {"m": ["m", "rn", "r-n"], "w": ["w", "vv", "v_v"]}
    disguised = "".join(
        data.draw(st.sampled_from(pairs.get(char) or [*alike.get(char, char)])) for char in name
    )

    assert skeleton(disguised) == skeleton(name)


@given(user_names)
def test_a_skeleton_is_its_own_skeleton(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_reserved_names(name: str) -> None:
    assert is_reserved(name)
    assert is_reserved(name + "_")
    assert is_reserved(name.replace("i", "1").replace("o", "0"))
    assert is_reserved(name.replace("l", "1").replace("m", "rn").replace("w", "vv"))


@pytest.mark.parametrize("name", ["adm1n", "a-d-m-i-n", "r00t", "rn0derat0r", "sa1t11ne", "a11"])
def test_what_looks_reserved_is_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize(
    "name", ["ada", "bob", "ali", "al1ce", "administer", "m1a", "rooty", "ann"]
)
def test_people_may_have_names(name: str) -> None:
    assert not is_reserved(name)


@pytest.mark.parametrize(
    ("text", "name", "is_room"),
    [("#dev", "#dev", True), ("@bob", "@bob", False), ("bob", "@bob", False)],
)
def test_conversations(text: str, name: str, is_room: bool) -> None:
    assert parse_conversation(text) == Conversation(name)
    assert parse_conversation(text).is_room is is_room


@pytest.mark.parametrize("text", ["", "@", "#", "@@bob", "#@bob", "@#dev", "bob ", "Bob", "#d"])
def test_what_is_no_conversation(text: str) -> None:
    with pytest.raises(BadName):
        parse_conversation(text)


def test_a_room_has_no_user() -> None:
    assert parse_conversation("bob").user == "bob"
    with pytest.raises(ValueError, match="a room is not a user"):
        _ = parse_conversation("#dev").user


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("relay.example", "relay.example", 7443, "relay.example:7443"),
        ("relay.example:443", "relay.example", 443, "relay.example:443"),
        ("localhost:1", "localhost", 1, "localhost:1"),
        ("my_host-1:65535", "my_host-1", 65535, "my_host-1:65535"),
        ("192.0.2.7:7443", "192.0.2.7", 7443, "192.0.2.7:7443"),
        ("::1", "::1", 7443, "[::1]:7443"),
        ("[::1]", "::1", 7443, "[::1]:7443"),
        ("[2001:db8::7]:99", "2001:db8::7", 99, "[2001:db8::7]:99"),
        ("[fe80::1%eth0]:99", "fe80::1%eth0", 99, "[fe80::1%eth0]:99"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7", 7443, "[::ffff:192.0.2.7]:7443"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    address = parse_relay_address(text)

    assert address == RelayAddress(host, port)
    assert str(address) == shown
    assert parse_relay_address(shown) == address


def test_the_port_that_is_not_said_is_the_callers() -> None:
    assert parse_relay_address("relay.example", default_port=9).port == 9


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":", ":7443", "a b", "-oProxy", ".hidden", "host\n", "høst", "a" * 254,
        "[", "[]", "[]:1", "[::1", "::1]", "[::1]x", "[::1]]:1", "[[::1]]:1", "[relay.example]:1",
        "a:b:c", "1:2:3", "::1%\n", "::1%a]b", "::1%\u202e", "user@host", "host/", "host%1",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadName, match="Not a relay's address") as refusal:
        parse_relay_address(text)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "h:", "[::1]:", "h:0", "h:65536", "h:-1", "h:+1", "h: 1", "h:1\n", "h:\u0661", "h:1e3",
        "h:000001", "https://relay.example",
    ],
)  # fmt: skip
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(BadName, match="Not a port"):
        parse_relay_address(text)


@given(st.text(max_size=60))
def test_an_address_or_a_sentence(text: str) -> None:
    try:
        address = parse_relay_address(text)
    except BadName as refusal:
        assert str(refusal).isprintable()
    else:
        assert parse_relay_address(str(address)) == address
