"""Set-up: a profile's key, its account at a relay, and the way back when it does not come about."""

from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from saltline.client import records
from saltline.client.certificates import PROVE_ANEW, PROVE_FIRST
from saltline.client.link_events import Target
from saltline.client.messenger import Client, target_of
from saltline.client.model import ExitCode, Refused
from saltline.client.output import Output, say
from saltline.client.profile import KeyKind, Profile, harden_process
from saltline.client.terminal import (
    ask_invite,
    ask_key,
    ask_new_passphrase,
    has_terminal,
    passphrase_from,
)
from saltline.protocol.errors import ErrorCode
from saltline.protocol.names import BadName, check_user

ANSWER_S: Final = 45.0
# Prekeys published and the lobby joined: before that, nobody can write to the new account.
_READY_S: Final = 20.0
_KEYS_LEFT: Final = (
    "The account is registered, but the relay has not confirmed all of its keys. They leave with"
    " the next command, for instance: saltline status"
)
_PASSPHRASE_SHORT: Final = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """What `register` was asked for."""

    username: str
    target: Target
    invite: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """How the profile's vault is to be opened: neither given, the person is asked."""

    passphrase_file: Path | None = None
    no_passphrase: bool = False


def register(folder: Path, wish: Wish, choice: KeyChoice, *, as_json: bool) -> None:
    """Make the profile and register its account; asked again, finish what was broken off."""
    harden_process()
    output = Output(as_json=as_json)
    try:
        check_user(wish.username)
    except BadName as error:
        raise Refused(f"{error} Nothing was changed.") from None
    profile = Profile(folder, create=True)
    profile.acquire()
    try:
        is_new = not profile.is_set_up
        key = _new_key(profile, choice) if is_new else _known_key(profile, choice)
        say(f"Registering {wish.username} at {wish.target.address} …")
        with Client.open(profile, key) as client:
            try:
                _finish_asking(client, wish)
            except BaseException:
                is_new = is_new and not _has_keys(client)
                raise
            is_new = False
            output.show(records.of_account(client.status(), wish.target.ca_file))
            output.flush()
    finally:
        if is_new:
            profile.discard_set_up()
        profile.release()
    say("Compare safety numbers with the people you write to: saltline verify USER")


def _finish_asking(client: Client, wish: Wish) -> None:
    """The same; where the relay wants an invite and none was given, a terminal is asked."""
    try:
        finish_registration(client, wish)
    except Refused as refused:
        needed = refused.relay_code == ErrorCode.INVITE_NEEDED and not wish.invite
        if not (needed and has_terminal()):
            raise
        finish_registration(client, replace(wish, invite=ask_invite()))


def finish_registration(client: Client, wish: Wish) -> None:
    """Register, unless that is done; then wait until others can write to the account."""
    account = client.account
    if account is not None and account.registered:
        same = account.username == wish.username and target_of(account).address == (
            wish.target.address
        )
        if not same:
            raise Refused(
                f"This profile is {account.username} at {target_of(account).address} already."
                " Nothing was changed: another account needs another --profile, a relay that moved:"
                " saltline relay --address."
            )
        # Who was killed after the relay's answer may have published nothing yet.
        client.start()
        _await(client.when_idle().result, _READY_S, _KEYS_LEFT)
        return
    answer = client.register(wish.username, wish.target, wish.invite)
    try:
        _await(
            answer.result,
            ANSWER_S,
            "The relay did not answer in time. Whether it registered the account is not known: the"
            " same command again finds out, and finishes it.",
        )
    except Refused as refused:  # there is no account yet whose relay could be changed
        refused.sentence = refused.sentence.replace(PROVE_ANEW, PROVE_FIRST)
        raise
    _await(client.when_idle().result, _READY_S, _KEYS_LEFT)


def _await(result: Callable[[float], object], timeout_s: float, sentence: str) -> None:
    with suppress(FutureTimeout):
        result(timeout_s)
        return
    raise Refused(sentence, ExitCode.TIMED_OUT)


def _has_keys(client: Client) -> bool:
    with suppress(Refused):
        account = client.account
        return account is not None and bool(account.identity)
    return True


def _new_key(profile: Profile, choice: KeyChoice) -> bytes:
    if choice.no_passphrase:
        return profile.create_key(None)
    if choice.passphrase_file is not None:
        passphrase = passphrase_from(choice.passphrase_file)
    else:
        passphrase = ask_new_passphrase()
    if len(passphrase) < _PASSPHRASE_SHORT:
        say(
            f"The passphrase has fewer than {_PASSPHRASE_SHORT} characters: who copies this profile"
            " can guess it. Several words are better; only a new profile can have another one."
        )
    return profile.create_key(passphrase)


def _known_key(profile: Profile, choice: KeyChoice) -> bytes:
    kind = profile.key_kind
    if choice.no_passphrase and kind is KeyKind.PASSPHRASE:
        raise Refused("This profile has a passphrase already. Nothing was changed.")
    if choice.passphrase_file is not None and kind is KeyKind.KEY_FILE:
        raise Refused("This profile has a key file and no passphrase. Nothing was changed.")
    return ask_key(profile, choice.passphrase_file)
