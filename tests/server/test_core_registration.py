"""Opening an account, with and without an invitation, and beginning anew after a reset."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from saltline.crypto.keylog import Entry, LogKey
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import identity_payload
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import CaughtUp, Error, Invited, Welcome
from saltline.protocol.to_relay import Register
from saltline.server.settings import Registration, Settings
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay
from tests.server.scenes import log_of, refused

BY_INVITE = Settings(registration=Registration.INVITE)


def test_registering_welcomes_and_logs_the_entry() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.connect()
    entry = ada.entry()
    ada.connection.send(ada.registration(entry))
    welcome, caught_up = ada.take()
    assert welcome == Welcome(
        time_ms=relay.now_ms,
        rooms=(),
        signed_prekey_id=0,
        kem_prekey_id=0,
        one_time_left=0,
        one_time_kem_left=0,
        generation=b"",
    )
    assert caught_up == CaughtUp(0)
    assert ada.connection.is_promoted
    assert log_of(ada, "ada") == (entry.encode(),)


def test_nothing_is_promised_before_the_commit() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.connect()
    relay.hold()
    ada.connection.send(ada.registration(ada.entry()))
    assert ada.take() == []
    assert not ada.connection.is_promoted
    relay.release()
    ada.expect(Welcome)


def test_the_same_registration_again_finds_the_account_it_made() -> None:
    # The answer was lost with the connection; the person tries again.
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.connect()
    entry = ada.entry()
    ada.connection.send(ada.registration(entry))
    ada.connect()
    ada.connection.send(ada.registration(entry))
    ada.expect(Welcome)
    assert log_of(ada, "ada") == (entry.encode(),)


@pytest.mark.parametrize("name", ["a", "Ada", "ada!", "-ada", "", "ада", "ada\n"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.connect()
    request = ada.registration(ada.entry())
    error = refused(ada, Register(name, request.entry, request.signature, ""))
    assert error.code == ErrorCode.BAD_NAME
    assert ada.connection.is_open, "the person may choose another"


@pytest.mark.parametrize("name", ["admin", "root", "relay", "r00t", "a-d-m-i-n", "adrnin", "he1p"])
def test_reserved_names_and_what_looks_like_them_are_refused(name: str) -> None:
    mallory = Person(MemoryRelay(), name)
    mallory.connect()
    error = refused(mallory, mallory.registration(mallory.entry()))
    assert error.code == ErrorCode.BAD_NAME
    assert "reserved" in error.detail


@pytest.mark.parametrize("name", ["modern", "m0dern", "rnodern", "mo-dern", "mod_ern"])
def test_a_name_that_is_taken_or_looks_like_one_is_refused(name: str) -> None:
    relay = MemoryRelay()
    Person(relay, "modern").register()
    mallory = Person(relay, name)
    mallory.connect()
    error = refused(mallory, mallory.registration(mallory.entry()))
    assert error.code == ErrorCode.NAME_TAKEN
    assert "modern" in error.detail
    assert mallory.connection.is_open

    # On the same connection, under another name.
    mallory.username = "mallory"
    mallory.keys = IdentityKeys.generate(relay.log_key.relay_id, "mallory", 1, relay.random)
    mallory.connection.send(mallory.registration(mallory.entry()))
    mallory.expect(Welcome)


def test_two_who_ask_for_one_name_in_one_group_do_not_both_get_it() -> None:
    relay = MemoryRelay()
    first, second = Person(relay, "ada"), Person(relay, "ada")
    first.connect()
    second.connect()
    relay.hold()
    first.connection.send(first.registration(first.entry()))
    second.connection.send(second.registration(second.entry()))
    relay.release()
    first.expect(Welcome)
    assert second.connection.take_one(Error).code == ErrorCode.NAME_TAKEN


def test_a_key_that_is_in_the_log_already_is_refused() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    copy = Person(relay, "copy")
    keys = IdentityKeys(
        replace(
            copy.keys.identity,
            signing_key=ada.keys.identity.signing_key,
        ),
        b"",
        copy.keys.agreement_secret,
        ada.keys._seed,
    )
    # The same signing key under another name, with an honest signature of it.
    copy.keys = replace(keys, identity_signature=keys.sign(identity_payload(keys.identity)))
    copy.connect()
    error = refused(copy, copy.registration(copy.entry()))
    assert error.code == ErrorCode.BAD_ENTRY
    assert "key log already" in error.detail


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def wrong_registration_signature(ada: Person) -> Register:
    request = ada.registration(ada.entry())
    return Register("ada", request.entry, flip(request.signature, 5), "")


def signature_for_another_connection(ada: Person) -> Register:
    request = ada.registration(ada.entry())
    ada.connect()
    return request


def signature_for_another_certificate(ada: Person) -> Register:
    own, ada.relay.certificate = ada.relay.certificate, ada.relay.new_certificate()
    request = ada.registration(ada.entry())
    ada.relay.certificate = own
    return request


@pytest.mark.parametrize(
    "forge",
    [
        wrong_registration_signature,
        signature_for_another_connection,
        signature_for_another_certificate,
    ],
)
def test_who_cannot_sign_this_conversation_is_not_let_in(
    forge: Callable[[Person], Register],
) -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.connect()
    error = refused(ada, forge(ada))
    assert error.code == ErrorCode.BAD_LOGIN
    assert not ada.connection.is_open
    Person(relay, "ada").register()


def entry_with_wrong_signature(ada: Person) -> Entry:
    entry = ada.entry()
    return replace(entry, signature=flip(entry.signature, 3))


def entry_with_wrong_identity_signature(ada: Person) -> Entry:
    entry = ada.entry()
    changed = replace(entry, identity_signature=flip(entry.identity_signature, 3))
    return replace(changed, signature=ada.keys.sign(changed.unsigned()))


def entry_for_another_relay(ada: Person) -> Entry:
    other = LogKey.generate(ada.relay.random)
    ada.keys = IdentityKeys.generate(other.relay_id, "ada", 1, ada.relay.random)
    return ada.entry()


def entry_of_a_later_device(ada: Person) -> Entry:
    ada.keys = IdentityKeys.generate(ada.relay.log_key.relay_id, "ada", 2, ada.relay.random)
    return ada.entry()


def entry_from_tomorrow(ada: Person) -> Entry:
    ada.relay.now_ms += DAY_MS + 1
    entry = ada.entry()
    ada.relay.now_ms -= DAY_MS + 1
    return entry


def entry_that_resets_nothing(ada: Person) -> Entry:
    return ada.reset_entry(Invited(1, "ada", 1, 0, bytes(32)))


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (entry_with_wrong_signature, ErrorCode.BAD_ENTRY),
        (entry_with_wrong_identity_signature, ErrorCode.BAD_ENTRY),
        (entry_for_another_relay, ErrorCode.BAD_ENTRY),
        (entry_of_a_later_device, ErrorCode.BAD_ENTRY),
        (entry_from_tomorrow, ErrorCode.BAD_ENTRY),
        (entry_that_resets_nothing, ErrorCode.BAD_INVITE),
    ],
)
def test_a_wrong_entry_is_refused(forge: Callable[[Person], Entry], code: ErrorCode) -> None:
    ada = Person(MemoryRelay(), "ada")
    ada.connect()
    assert refused(ada, ada.registration(forge(ada))).code == code


def test_an_entry_of_another_user_is_refused() -> None:
    relay = MemoryRelay()
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.connect()
    entry = bob.entry().encode()
    error = refused(ada, Register("ada", entry, ada.keys.sign(b"whatever"), ""))
    assert error.code == ErrorCode.BAD_ENTRY


@pytest.mark.parametrize("entry", [b"", b"\x00" * 300, b"saltline/1 entry\x00"])
def test_an_entry_that_is_none_is_refused(entry: bytes) -> None:
    ada = Person(MemoryRelay(), "ada")
    ada.connect()
    assert refused(ada, Register("ada", entry, bytes(64), "")).code == ErrorCode.BAD_ENTRY
