"""The full-screen client against a relay on this computer, from nothing, to try it out.

Everything is kept in .chat/ until `make clean`, so that the next `make chat` goes on.
"""

import os
import subprocess
import sys
from pathlib import Path

from demo.programs import BIN, DemoFailed, User, running_relay

FOLDER = Path(".chat")
YOU = "you-there"


def main() -> int:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    me = User((FOLDER / "you").resolve())
    try:
        with running_relay((FOLDER / "relay").resolve()) as relay:
            if not (me.profile / "vault.db").exists():
                me.register(relay, YOU)
            else:
                me.run("relay", "--address", relay.address, "--pin", relay.pin)
            print(
                f"A second person, in another terminal:\n  {BIN / 'saltline'} --profile /tmp/second"
                f" register --relay {relay.address} --pin {relay.pin} --user friend",
                flush=True,
            )
            return subprocess.run(
                [BIN / "saltline", "--profile", me.profile], env=os.environ
            ).returncode
    except DemoFailed as failed:
        print(failed, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
