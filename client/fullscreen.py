"""`saltline` without a command: the screen, which also serves this profile's other commands."""

import sys
import time
from typing import Final

from saltline.client.control import ControlServer
from saltline.client.headless import Options
from saltline.client.messenger import Client
from saltline.client.model import ExitCode, Refused
from saltline.client.output import say
from saltline.client.profile import Busy, Profile, harden_process
from saltline.client.service import Service
from saltline.client.setup_steps import ProfileSetup, resume
from saltline.client.terminal import ask_key

# A short command ends by itself; whatever else owns the profile goes on.
_PATIENCE_S: Final = 5.0
_RETRY_S: Final = 0.1


def run(options: Options) -> int:
    """Show the screen until the person leaves; the exit status. Raises Refused."""
    harden_process()
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        raise Refused("The full screen needs a terminal; for scripts there are: saltline --help")
    profile = Profile(options.folder, create=True)
    _acquire(profile)
    try:
        client = _client(profile, options)
        if client is None:
            return ExitCode.USAGE
        with client:
            return _show(profile, client)
    finally:
        profile.release()


def _acquire(profile: Profile) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            profile.acquire()
            return
        except Busy:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_S)


def _client(profile: Profile, options: Options) -> Client | None:
    """The client of a profile with an account; None if the person left the set-up."""
    if not profile.is_set_up:
        return _set_up(profile)
    client = Client.open(profile, ask_key(profile, options.passphrase_file))
    try:
        account = client.account
        if account is not None and account.registered:
            return client
        if account is not None and account.identity:
            say(f"Finishing the registration of {account.username} …")
            resume(client)
            return client
    except BaseException:
        client.close()
        raise
    client.close()
    profile.discard_set_up()  # a set-up that ended before there were keys
    return _set_up(profile)


def _set_up(profile: Profile) -> Client | None:
    from saltline.client.tui.setup import run_setup

    steps = ProfileSetup(profile)
    try:
        return steps.take() if run_setup(steps) else None
    finally:
        steps.close()


def _show(profile: Profile, client: Client) -> int:
    from saltline.client.tui.app import run_screen

    service = Service(client)
    control = ControlServer(profile, service)
    try:
        client.start()
        return int(run_screen(client))
    finally:
        service.leave()
        control.close()
