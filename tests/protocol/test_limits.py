"""Limits: the numbers fit each other, and everything that is allowed fits a frame."""

import msgspec
import pytest

from saltline.protocol import limits, to_client, to_relay
from saltline.protocol.names import ROOM_PATTERN, USER_PATTERN
from tests.protocol.wire_values import CLIENT_STRUCTS, RELAY_STRUCTS, largest, struct_type

PAGES = {to_client.LookedUp, to_client.HistoryPage, to_client.Entries}
BEFORE_LOGIN = [to_relay.Hello, to_relay.CheckInvite, to_relay.Register, to_relay.Login]


def largest_size_bytes(struct: type[msgspec.Struct], items_max: int | None = None) -> int:
    return len(msgspec.msgpack.encode(largest(struct_type(struct), items_max)))


@pytest.mark.parametrize("struct", [s for s in CLIENT_STRUCTS + RELAY_STRUCTS if s not in PAGES])
def test_the_largest_message_fits_a_frame(struct: type[msgspec.Struct]) -> None:
    assert largest_size_bytes(struct) <= limits.FRAME_MAX_BYTES


@pytest.mark.parametrize("struct", BEFORE_LOGIN)
def test_what_a_stranger_says_fits_the_frame_of_a_stranger(struct: type[msgspec.Struct]) -> None:
    assert largest_size_bytes(struct) <= limits.FRAME_MAX_BEFORE_LOGIN_BYTES


@pytest.mark.parametrize("struct", sorted(PAGES, key=str))
def test_a_page_that_passes_its_mark_with_one_entry_fits_a_frame(
    struct: type[msgspec.Struct],
) -> None:
    one = largest_size_bytes(struct, items_max=1)

    assert limits.PAGE_MAX_BYTES + one <= limits.FRAME_MAX_BYTES


def test_prekeys_fit_the_relay_and_a_publish() -> None:
    assert limits.ONE_TIME_PREKEYS_REFILL_BELOW < limits.ONE_TIME_PREKEYS
    assert limits.ONE_TIME_KEM_PREKEYS_REFILL_BELOW < limits.ONE_TIME_KEM_PREKEYS
    assert 2 * limits.ONE_TIME_PREKEYS <= limits.ONE_TIME_IDS_MAX
    assert limits.ONE_TIME_PREKEYS <= limits.PREKEYS_PER_PUBLISH_MAX


def test_a_private_half_outlives_an_envelope_made_on_its_last_day() -> None:
    kept_s = limits.PREKEY_KEPT_AFTER_SUCCESSOR_S

    assert kept_s == limits.SIGNED_PREKEY_LIFE_S + limits.ENVELOPE_KEPT_S + 86_400


def test_texts_fit_what_carries_them() -> None:
    assert limits.TEXT_MAX_BYTES < limits.ROOM_STATEMENT_MAX_BYTES
    # A PADMÉ step at 64 KiB is 2 KiB; the ratchet's header and setup stay under 6 KiB.
    assert limits.TEXT_MAX_BYTES + 8 * 1024 < limits.ENVELOPE_MAX_BYTES
    assert limits.DELIVERY_WINDOW_BYTES >= limits.ENVELOPE_MAX_BYTES
    assert limits.OUTGOING_QUEUE_MAX_BYTES >= limits.DELIVERY_WINDOW_BYTES + limits.FRAME_MAX_BYTES


def test_the_longest_names_are_the_longest_on_the_wire() -> None:
    assert USER_PATTERN.fullmatch("a" * limits.NAME_MAX_CHARS)
    assert not USER_PATTERN.fullmatch("a" * (limits.NAME_MAX_CHARS + 1))
    assert ROOM_PATTERN.fullmatch("#" + "a" * (limits.ROOM_MAX_CHARS - 1))
    assert not ROOM_PATTERN.fullmatch("#" + "a" * limits.ROOM_MAX_CHARS)


def test_a_dead_link_is_seen_within_a_minute() -> None:
    assert limits.PING_INTERVAL_S * (limits.PINGS_MISSED_MAX + 1) <= 45
    assert limits.RECONNECT_FIRST_S < limits.RECONNECT_MAX_S
    assert limits.HANDSHAKE_DEADLINE_S <= limits.LOGIN_DEADLINE_S
