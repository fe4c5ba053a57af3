"""Whom the link trusts: a pin, or an authority and the host name, before one byte leaves."""

import ssl
from pathlib import Path

import pytest

from saltline.client.certificates import format_pin, inspect_relay, parse_pin, read_target
from saltline.client.link_events import (
    LinkDown,
    LinkRefused,
    LinkTrying,
    LinkUp,
    Target,
)
from saltline.client.model import ExitCode, Refused
from saltline.protocol.names import RelayAddress
from tests.client.tls_peer import Shown, StartLink, TlsServer, closed_port, make_certificate
from tests.waiting import wait_until

# --- certificates ----------------------------------------------------------------------------


def test_a_pinned_relay_is_connected_to_over_tls_1_3(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    _, events = start_link(Target(server.address, pin=shown.spki_hash))

    up = events.wait_for(LinkUp)

    assert (up.connection, up.spki_hash) == (1, shown.spki_hash)
    assert server.accept().sock.version() == "TLSv1.3"


def test_another_key_than_the_pinned_one_gets_not_one_byte_and_no_second_try(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    wrong = bytes(32)
    _, events = start_link(Target(server.address, pin=wrong))

    refused = events.wait_for(LinkRefused)

    assert format_pin(wrong) in refused.sentence
    assert format_pin(shown.spki_hash) in refused.sentence
    assert "Nothing was sent" in refused.sentence
    assert server.accept().until_closed() == b""
    assert [type(event) for event in events.all] == [LinkTrying, LinkRefused]


def test_after_a_refusal_the_link_waits_until_it_is_asked(
    server: TlsServer, start_link: StartLink
) -> None:
    link, events = start_link(Target(server.address, pin=bytes(32)))
    events.wait_for(LinkRefused)

    link.reconnect()

    events.wait_for(LinkRefused, 1)
    wait_until(lambda: server.handshakes == 2, "a second handshake, and no third")


def test_a_certificate_of_the_given_authority_needs_no_pin(
    server: TlsServer, authority: Shown, shown: Shown, start_link: StartLink
) -> None:
    _, events = start_link(Target(server.address, ca_file=str(authority.chain)))

    assert events.wait_for(LinkUp).spki_hash == shown.spki_hash


def test_the_systems_authorities_do_not_vouch_for_a_relay_of_our_own(
    server: TlsServer, shown: Shown, start_link: StartLink
) -> None:
    _, events = start_link(Target(server.address))

    refused = events.wait_for(LinkRefused)

    assert format_pin(shown.spki_hash) in refused.sentence
    assert "not vouched for by the system's authorities" in refused.sentence


def test_an_authority_vouches_for_a_name_not_for_every_name(
    certificates: Path, authority: Shown, start_link: StartLink
) -> None:
    elsewhere = make_certificate(certificates, "other", host="other.example", signed_by=authority)
    with TlsServer(elsewhere) as server:
        _, events = start_link(Target(server.address, ca_file=str(authority.chain)))

        sentence = events.wait_for(LinkRefused).sentence

    assert "is for other.example, not for '127.0.0.1'. Nothing was sent." in sentence
    assert format_pin(elsewhere.spki_hash) in sentence
    assert ".." not in sentence and "mismatch" not in sentence


def test_a_pin_does_not_ask_for_the_name(certificates: Path, start_link: StartLink) -> None:
    elsewhere = make_certificate(certificates, "named", host="other.example")
    with TlsServer(elsewhere) as server:
        _, events = start_link(Target(server.address, pin=elsewhere.spki_hash))

        assert events.wait_for(LinkUp).spki_hash == elsewhere.spki_hash


def test_tls_1_2_is_not_spoken(shown: Shown, start_link: StartLink) -> None:
    with TlsServer(shown, newest=ssl.TLSVersion.TLSv1_2) as server:
        _, events = start_link(Target(server.address, pin=shown.spki_hash))

        assert "does not speak TLS 1.3" in events.wait_for(LinkDown).detail
        wait_until(lambda: server.failures, "a refused handshake")
        assert server.handshakes == 0


def test_a_relays_pin_can_be_fetched_before_anybody_logs_in(
    server: TlsServer, authority: Shown, shown: Shown
) -> None:
    seen = inspect_relay(server.address)
    vouched = inspect_relay(server.address, str(authority.chain))

    assert (seen.pin, seen.vouched) == (format_pin(shown.spki_hash), False)
    assert (vouched.spki_hash, vouched.vouched) == (shown.spki_hash, True)
    assert server.accept(0).until_closed() == b""


def test_a_relay_that_is_not_there_cannot_be_inspected() -> None:
    with closed_port() as port, pytest.raises(Refused, match="cannot be reached") as refused:
        inspect_relay(RelayAddress("127.0.0.1", port))

    assert refused.value.code is ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "ab" * 32, "sha256:" + "AB" * 32, "sha256:" + "ab" * 31, "SHA256:" + "ab" * 32],
)
def test_a_pin_has_one_spelling(text: str) -> None:
    with pytest.raises(Refused, match="64 hexadecimal digits in lower case"):
        parse_pin(text)


def test_what_proves_a_relay_is_said_once(certificates: Path, authority: Shown) -> None:
    pin = format_pin(b"\x01" * 32)
    pinned = read_target("relay.example", pin, None)
    moved = read_target("new.example:1", None, None, before=pinned)

    assert pinned == Target(RelayAddress("relay.example", 7443), b"\x01" * 32)
    assert moved == Target(RelayAddress("new.example", 1), b"\x01" * 32)
    assert read_target("x", None, str(authority.chain), before=moved).pin == b""
    with pytest.raises(Refused, match="not both"):
        read_target("relay.example", pin, "ca.pem")
    with pytest.raises(Refused, match="cannot be read"):
        read_target("relay.example", None, str(certificates / "nowhere.pem"))
    with pytest.raises(Refused, match="Not a relay's address"):
        read_target("two words", pin, None)
