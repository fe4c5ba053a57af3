"""`saltline` without a command: the screen, which also serves this profile's other commands."""

import sys
import time
from typing import Final

from saltline.client.control import ControlServer
from saltline.client.headless import Options
from saltline.client.messenger import Client
from saltline.client.model import Refused
from saltline.client.profile import Busy, Profile, harden_process
from saltline.client.service import Service
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
        with _client(profile, options) as client:
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


def _client(profile: Profile, options: Options) -> Client:
    client = Client.open(profile, ask_key(profile, options.passphrase_file))
    account = client.account
    if account is None or not account.registered:
        client.close()
        raise Refused("This profile has no account yet. Make one with: saltline register")
    return client


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
