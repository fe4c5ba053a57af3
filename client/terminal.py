"""What is asked of a person: passphrases, without echo, and yes or no. Never on a pipe."""

import getpass
import os
import sys
from pathlib import Path
from typing import Final

from saltline.client.model import Refused
from saltline.client.output import say
from saltline.client.profile import KeyKind, Profile, read_passphrase_file
from saltline.client.vault.database import Vault, WrongKey
from saltline.protocol.text import sanitise

_TRIES: Final = 3
_CODE_MAX_BYTES: Final = 1024


def has_terminal() -> bool:
    """Whether a passphrase can be typed unseen: a terminal, whatever standard input is."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def ask_key(profile: Profile, passphrase_file: Path | None) -> bytes:
    """The 32-byte key of a profile that is set up and ours; typed wrong, it is asked for again.

    Raises Refused.
    """
    if profile.key_kind is not KeyKind.PASSPHRASE:
        return profile.unlock(None)
    if passphrase_file is not None:
        key = profile.unlock(passphrase_from(passphrase_file))
        if _opens(profile, key):
            return key
        raise Refused(
            f"The passphrase in {passphrase_file} does not open this vault. Nothing was changed."
        )
    if not has_terminal():
        raise Refused(
            "This profile has a passphrase, and there is no terminal to ask for it:"
            " saltline --passphrase-file FILE …"
        )
    return _ask_until_it_opens(profile)


def _ask_until_it_opens(profile: Profile) -> bytes:
    """Ending at the first mistake would send the next try to the shell, and there in clear."""
    for left in reversed(range(_TRIES)):
        typed = _ask(f"Passphrase of {profile.folder}: ")
        if typed:
            key = profile.unlock(typed)
            if _opens(profile, key):
                return key
        if left:
            say("The passphrase does not open this vault. Try again.")
    raise Refused(
        f"The passphrase does not open this vault, {_TRIES} times in a row. Nothing was changed."
    )


def _opens(profile: Profile, key: bytes) -> bool:
    try:
        Vault.open(profile.vault_path, key).close()
    except WrongKey:
        return False
    return True


def passphrase_from(file: Path) -> str:
    """The passphrase in a file; says so if others can read it. Raises Refused."""
    passphrase, is_public = read_passphrase_file(file)
    if is_public:
        say(f"Others can read the passphrase in {file}: chmod 600 {file}")
    return passphrase


def ask_new_passphrase() -> str:
    """A new passphrase, typed twice. Raises Refused."""
    if not has_terminal():
        raise Refused(
            "There is no terminal to ask for a passphrase: give --passphrase-file FILE, or"
            " --no-passphrase to keep the key in a file of the profile. Nothing was changed."
        )
    passphrase = _ask("New passphrase for this profile: ")
    if not passphrase:
        raise Refused(
            "An empty passphrase protects nothing. To keep the key in a file instead:"
            " --no-passphrase. Nothing was changed."
        )
    if passphrase != _ask("Again: "):
        raise Refused("The two passphrases differ. Nothing was changed; try again.")
    return passphrase


def ask_invite() -> str:
    """An invite or reset code, typed or pasted unseen. Raises Refused."""
    if not has_terminal():
        raise Refused(
            "There is no terminal to ask for the code: give --invite-file FILE."
            " Nothing was changed."
        )
    code = _ask("Invite code, from the relay's admin: ").strip()
    if not code:
        raise Refused("No code was typed. Nothing was changed.")
    return code


def invite_from(file: str) -> str:
    """The code in a file's first line; `-` is standard input. Raises Refused."""
    try:
        if file == "-":
            data = b"" if sys.stdin is None else sys.stdin.buffer.readline(_CODE_MAX_BYTES)
        else:
            with open(file, "rb") as opened:
                data = opened.readline(_CODE_MAX_BYTES)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Refused(f"Cannot read the code in {file}: {reason}. Nothing was changed.") from None
    code = data.decode("utf-8", "replace").strip()
    if not code:
        where = "standard input" if file == "-" else file
        raise Refused(f"The first line of {where} is empty; the code stands there.")
    return code


def _ask(question: str) -> str:
    try:
        return getpass.getpass(sanitise(question, newlines=False))  # it names a folder
    except EOFError:
        raise Refused("Nothing was typed. Nothing was changed.") from None


def confirm(question: str) -> bool:
    """Yes or no, on a terminal; anywhere else no, without a word."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return False
    say(f"{question} Type yes or no, then Enter:")
    return sys.stdin.readline(100).strip().lower() in ("y", "yes")
