"""Invitations, and beginning anew after a reset."""

from dataclasses import replace

import pytest

from saltline.crypto.keylog import replay
from saltline.crypto.keys import IdentityKeys
from saltline.protocol.content import RoomKind
from saltline.protocol.errors import ErrorCode
from saltline.protocol.to_client import CaughtUp, Error, Invited, RoomEntry, Welcome
from saltline.protocol.to_relay import CheckInvite
from saltline.server.administration import Refused, ResetUser
from saltline.server.settings import Registration, Settings
from tests.server.person import Person
from tests.server.relay_harness import DAY_MS, MemoryRelay
from tests.server.scenes import invite, log_of, members, refused, reset_code

BY_INVITE = Settings(registration=Registration.INVITE)


# --- invitations ---------------------------------------------------------------------------------


def test_without_an_invitation_there_is_no_account_where_one_is_asked() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    ada = Person(relay, "ada")
    ada.connect()
    error = refused(ada, ada.registration(ada.entry()))
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
    assert refused(eve, eve.registration(eve.entry(), code)).code == ErrorCode.BAD_INVITE


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
    error = refused(late, late.registration(late.entry(), code))
    assert error.code == ErrorCode.NAME_TAKEN
    Person(relay, "bob").register(code)


def test_an_invitation_ends_at_its_time() -> None:
    relay = MemoryRelay(settings=BY_INVITE)
    code = invite(relay)
    relay.now_ms += DAY_MS
    ada = Person(relay, "ada")
    ada.connect()
    assert refused(ada, ada.registration(ada.entry(), code)).code == ErrorCode.BAD_INVITE


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


def test_a_post_that_waits_behind_a_reset_is_not_numbered() -> None:
    relay = MemoryRelay()
    lost, bob = members(relay, "ada", "bob")
    code = reset_code(relay, "ada")
    new = Person(relay, "ada", device=2)
    registration = new.registration(new.reset_entry(new.check_invite(code)), code)
    relay.hold()
    new.connection.send(registration)
    relay.release_one_group()  # the code is found, and the reset about to be stored
    lost.connection.send(lost.post_request("#lobby", lost.statement(RoomKind.TEXT, b"too late")))
    relay.release()
    new.expect(Welcome)
    assert [error.code for error in lost.connection.take_all(Error)] == [ErrorCode.REMOVED]
    assert bob.connection.take_all(RoomEntry) == []
    assert bob.post("#lobby", "next").number == 3


def test_a_reset_needs_its_own_code() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    Person(relay, "bob").register()
    for code in (invite(relay), reset_code(relay, "bob"), "", "nonsense"):
        new = Person(relay, "ada", device=2)
        new.connect()
        invited = Invited(1, "ada", 2, 1, ada.entry().hash)
        error = refused(new, new.registration(new.reset_entry(invited), code))
        assert error.code == ErrorCode.BAD_INVITE
    assert ada.connection.is_open


def test_a_reset_code_opens_no_account() -> None:
    relay = MemoryRelay()
    Person(relay, "ada").register()
    eve = Person(relay, "eve")
    eve.connect()
    error = refused(eve, eve.registration(eve.entry(), reset_code(relay, "ada")))
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
    assert refused(new, new.registration(entry, code)).code == ErrorCode.BAD_ENTRY
    assert ada.connection.is_open
    assert len(log_of(ada, "ada")) == 1
    assert Person(relay, "ada", device=2).check_invite(code).number == 1, "the code still works"


def test_a_reset_needs_keys_that_the_log_has_never_seen() -> None:
    relay = MemoryRelay()
    ada = Person(relay, "ada")
    ada.register()
    code = reset_code(relay, "ada")
    again = Person(relay, "ada", device=2)
    secrets = iter((ada.keys.to_bytes()[-64:-32], ada.keys.to_bytes()[-32:]))
    again.keys = IdentityKeys.generate(
        relay.log_key.relay_id, "ada", 2, lambda _size: next(secrets)
    )
    assert again.keys.identity.signing_key == ada.keys.identity.signing_key
    entry = again.reset_entry(again.check_invite(code))
    error = refused(again, again.registration(entry, code))
    assert error.code == ErrorCode.BAD_ENTRY
    assert "in the key log already" in error.detail
    assert ada.connection.is_open


def test_a_reset_takes_the_device_number_that_was_announced() -> None:
    relay = MemoryRelay()
    Person(relay, "ada").register()
    code = reset_code(relay, "ada")
    new = Person(relay, "ada", device=7)
    entry = new.reset_entry(new.check_invite(code))
    assert refused(new, new.registration(entry, code)).code == ErrorCode.BAD_ENTRY


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
