"""Opening an account, with and without an invitation, and beginning anew after a reset."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from saltline.crypto.keylog import Entry, LogKey, replay
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.signatures import identity_payload
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import CaughtUp, Error, Invited, LookedUp, Welcome
from saltline.protocol.to_relay import CheckInvite, Lookup, LookupName, Register
from saltline.server.administration import Code, CreateInvite, Refused, ResetUser
from saltline.server.settings import Registration, Settings
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay

BY_INVITE = Settings(registration=Registration.INVITE)


def invite(relay: MemoryRelay, uses: int = 1) -> str:
    code = relay.admin(CreateInvite(uses, relay.now_ms + DAY_MS))
    assert isinstance(code, Code)
    return code.code


def reset_code(relay: MemoryRelay, username: str) -> str:
    code = relay.admin(ResetUser(username, relay.now_ms + DAY_MS))
    assert isinstance(code, Code)
    return code.code


def log_of(person: Person, username: str) -> tuple[bytes, ...]:
    """An account's key log entries, as the relay tells them."""
    person.take()
    person.connection.send(Lookup(person.next_id(), (LookupName(username, 0),)))
    (page,) = person.connection.take_one(LookedUp).accounts
    assert page.total == len(page.entries)
    return page.entries


def refusal(person: Person, request: Register) -> Error:
    person.connection.send(request)
    return person.connection.take_one(Error)


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
    error = refusal(ada, Register(name, request.entry, request.signature, ""))
    assert error.code == ErrorCode.BAD_NAME
    assert ada.connection.is_open, "the person may choose another"


@pytest.mark.parametrize("name", ["admin", "root", "relay", "r00t", "a-d-m-i-n", "adrnin", "he1p"])
def test_reserved_names_and_what_looks_like_them_are_refused(name: str) -> None:
    mallory = Person(MemoryRelay(), name)
    mallory.connect()
    error = refusal(mallory, mallory.registration(mallory.entry()))
    assert error.code == ErrorCode.BAD_NAME
    assert "reserved" in error.detail


@pytest.mark.parametrize("name", ["modern", "m0dern", "rnodern", "mo-dern", "mod_ern"])
def test_a_name_that_is_taken_or_looks_like_one_is_refused(name: str) -> None:
    relay = MemoryRelay()
    Person(relay, "modern").register()
    mallory = Person(relay, name)
    mallory.connect()
    error = refusal(mallory, mallory.registration(mallory.entry()))
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
    error = refusal(copy, copy.registration(copy.entry()))
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
    error = refusal(ada, forge(ada))
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
    assert refusal(ada, ada.registration(forge(ada))).code == code


def test_an_entry_of_another_user_is_refused() -> None:
    relay = MemoryRelay()
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.connect()
    entry = bob.entry().encode()
    error = refusal(ada, Register("ada", entry, ada.keys.sign(b"whatever"), ""))
    assert error.code == ErrorCode.BAD_ENTRY


@pytest.mark.parametrize("entry", [b"", b"\x00" * 300, b"saltline/1 entry\x00"])
def test_an_entry_that_is_none_is_refused(entry: bytes) -> None:
    ada = Person(MemoryRelay(), "ada")
    ada.connect()
    assert refusal(ada, Register("ada", entry, bytes(64), "")).code == ErrorCode.BAD_ENTRY


# --- invitations ---------------------------------------------------------------------------------


def test_without_an_invitation_there_is_no_account_where_one_is_asked() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    ada = Person(relay, "ada")
    ada.connect()
    error = refusal(ada, ada.registration(ada.entry()))
    assert error.code == ErrorCode.INVITE_NEEDED
    assert ada.connection.is_open

    ada.connection.send(ada.registration(ada.entry(), invite(relay)))
    ada.expect(Welcome)


def test_an_invitation_is_good_for_as_many_as_it_says() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    code = invite(relay, uses=2)
    Person(relay, "ada").register(code)
    Person(relay, "bob").register(code)
    eve = Person(relay, "eve")
    eve.connect()
    assert refusal(eve, eve.registration(eve.entry(), code)).code == ErrorCode.BAD_INVITE


def test_two_who_use_the_last_invitation_in_one_group_do_not_both_get_in() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    code = invite(relay)
    ada, bob = Person(relay, "ada"), Person(relay, "bob")
    ada.connect()
    bob.connect()
    relay.hold()
    ada.connection.send(ada.registration(ada.entry(), code))
    bob.connection.send(bob.registration(bob.entry(), code))
    relay.release()
    ada.expect(Welcome)
    assert bob.connection.take_one(Error).code == ErrorCode.BAD_INVITE


def test_a_refused_registration_uses_up_no_invitation() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    code = invite(relay, uses=2)
    Person(relay, "ada").register(code)
    late = Person(relay, "ada")
    late.connect()
    error = refusal(late, late.registration(late.entry(), code))
    assert error.code == ErrorCode.NAME_TAKEN
    Person(relay, "bob").register(code)


def test_an_invitation_ends_at_its_time() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    code = invite(relay)
    relay.now_ms += DAY_MS
    ada = Person(relay, "ada")
    ada.connect()
    assert refusal(ada, ada.registration(ada.entry(), code)).code == ErrorCode.BAD_INVITE


def test_a_code_is_read_whatever_its_case_and_groups() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    code = invite(relay)
    Person(relay, "ada").register(code.upper().replace("-", " ").replace("0", "O"))


def test_check_invite_says_what_a_code_is_for() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    code = invite(relay)
    ada = Person(relay, "ada")
    assert ada.check_invite(code) == Invited(1, "", 1, 0, bytes(32))
    # Asking did not use it, and the same connection registers.
    ada.connection.send(ada.registration(ada.entry(), code))
    ada.expect(Welcome)

    bob = Person(relay, "bob")
    bob.connect()
    bob.connection.send(CheckInvite(9, code))
    error = bob.connection.take_one(Error)
    assert (error.id, error.code) == (9, ErrorCode.BAD_INVITE)
    assert bob.connection.is_open


def test_only_the_hash_of_a_code_is_stored() -> None:
    relay = MemoryRelay()
    code = invite(relay)
    rows = relay.database._database.execute("SELECT * FROM code").fetchall()
    assert len(rows) == 1
    assert code.replace("-", "") not in repr(rows)
    assert code not in repr(rows)
    assert code not in repr(relay.effects)


# --- resets --------------------------------------------------------------------------------------


def test_a_reset_ends_the_old_device_and_begins_a_new_one() -> None:
    relay = MemoryRelay()
    lost, bob = Person(relay, "ada"), Person(relay, "bob")
    lost.register()
    bob.register()
    bob.submit(lost, b"sealed for the lost device")
    code = reset_code(relay, "ada")

    new = Person(relay, "ada", device=2)
    invited = new.check_invite(code)
    assert (invited.username, invited.device, invited.number) == ("ada", 2, 1)
    lost.take()
    new.connection.send(new.registration(new.reset_entry(invited), code))
    new.expect(Welcome)
    assert new.take() == [CaughtUp(0)], "what was sealed for another key is not delivered"

    ended = lost.connection.take_one(Error)
    assert (ended.id, ended.code) == (0, ErrorCode.REMOVED)
    assert not lost.connection.is_open

    account = replay(log_of(bob, "ada"), relay.log_key.public)
    assert account.live == (new.keys.identity,)
    assert account.resets == 1

    # The old device is told why it does not get in, the code is used up, and mail goes to the new.
    lost.connect()
    lost.connection.send(lost.login_request())
    assert lost.connection.take_one(Error).code == ErrorCode.REMOVED
    other = Person(relay, "ada", device=3)
    other.connect()
    other.connection.send(CheckInvite(1, code))
    assert other.connection.take_one(Error).code == ErrorCode.BAD_INVITE
    bob.take()
    bob.submit(lost, b"late")
    assert bob.connection.take_one(Error).code == ErrorCode.UNKNOWN_DEVICE


def test_a_reset_needs_its_own_code() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    Person(relay, "bob").register()
    for code in (invite(relay), reset_code(relay, "bob"), "", "nonsense"):
        new = Person(relay, "ada", device=2)
        new.connect()
        invited = Invited(1, "ada", 2, 1, ada.entry().hash)
        error = refusal(new, new.registration(new.reset_entry(invited), code))
        assert error.code == ErrorCode.BAD_INVITE
    assert ada.connection.is_open


def test_a_reset_code_opens_no_account() -> None:
    relay = MemoryRelay()
    Person(relay, "ada").register()
    eve = Person(relay, "eve")
    eve.connect()
    error = refusal(eve, eve.registration(eve.entry(), reset_code(relay, "ada")))
    assert error.code == ErrorCode.BAD_INVITE


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": 2},
        {"previous": bytes(32)},
        {"signer": 1},
        {"signature": bytes(63) + b"\x01"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_reset_entry_is_refused_and_changes_nothing(change: dict[str, int]) -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    code = reset_code(relay, "ada")
    new = Person(relay, "ada", device=2)
    invited = new.check_invite(code)
    entry = replace(new.reset_entry(invited), **change)  # type: ignore[arg-type]
    assert refusal(new, new.registration(entry, code)).code == ErrorCode.BAD_ENTRY
    assert ada.connection.is_open
    assert len(log_of(ada, "ada")) == 1
    assert Person(relay, "ada", device=2).check_invite(code).number == 1, "the code still works"


def test_a_reset_takes_the_device_number_that_was_announced() -> None:
    relay = MemoryRelay()
    Person(relay, "ada").register()
    code = reset_code(relay, "ada")
    new = Person(relay, "ada", device=7)
    entry = new.reset_entry(new.check_invite(code))
    assert refusal(new, new.registration(entry, code)).code == ErrorCode.BAD_ENTRY


def test_a_newer_reset_code_replaces_an_older_one() -> None:
    relay = MemoryRelay()
    Person(relay, "ada").register()
    older = reset_code(relay, "ada")
    newer = reset_code(relay, "ada")
    person = Person(relay, "ada", device=2)
    person.connect()
    person.connection.send(CheckInvite(1, older))
    assert person.connection.take_one(Error).code == ErrorCode.BAD_INVITE
    assert person.check_invite(newer).username == "ada"


def test_who_has_no_account_cannot_be_reset() -> None:
    relay = MemoryRelay()
    refused = relay.admin(ResetUser("nobody-here", relay.now_ms + DAY_MS))
    assert isinstance(refused, Refused)
    assert refused.code == ErrorCode.UNKNOWN_USER
