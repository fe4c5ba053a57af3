"""Texts and keys that nobody else may see, looked for wherever anything is written down.

Two real clients talk through a relay that logs everything it can; then every file, log and answer
is searched for what they said, for the keys of their vaults and for those of their sessions at
several moments, in each form that a slip could give them; and so are backups, made as
docs/relay.md says. Every text carries one mark, so that one search finds any of them.
"""

import base64
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from saltline.client.messenger import Client
from saltline.client.profile import Profile
from saltline.client.vault import views
from saltline.client.vault.database import Vault
from saltline.crypto.keys import PrekeyPair
from saltline.crypto.ratchet import TheirTurn
from saltline.crypto.session import Session
from saltline.protocol.to_client import Error
from tests.client.programs import PROGRAM, Process, owner_serves
from tests.torture.ledger import Ledger
from tests.torture.mortal_relay import MANY_FROM_HERE, MortalRelay
from tests.torture.pair import Pair
from tests.torture.trial import Figures, Scale
from tests.waiting import wait_until

CONFIG: Final = 'log_level = "debug"\n' + MANY_FROM_HERE
KEY_FILE: Final = "vault.key"  # holds the vault's key by the person's choice, 0600
_MOMENTS: Final = 4  # at which the keys of sessions are looked up
_EDGES: Final = re.compile(rb"^.{4}(.*).{4}$", re.DOTALL)


def forms(secret: bytes) -> set[bytes]:
    """As it is, as UTF-16, in hexadecimal, as Python writes bytes and lists of numbers, and,
    wherever it may begin there, in base64."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    found |= {repr(secret)[2:-1].encode(), *(_numbers(secret, by) for by in (",", ", ", " "))}
    for skipped in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            inner = _EDGES.match(encode(bytes(skipped) + secret + bytes(3)))
            assert inner is not None
            found.add(inner[1][:-4])
    if secret.isascii():
        found |= {secret.decode().encode(name) for name in ("utf-16-le", "utf-16-be")}
    return found


def _numbers(secret: bytes, between: str) -> bytes:
    return between.join(map(str, secret)).encode()


class Searched:
    """What was looked through, and for how much.

    Thousands of forms are looked for at once: whatever has 15 bytes or more has, wherever it lies,
    one of its first eight pieces of 8 bytes at a multiple of 8.
    """

    def __init__(self, wanted: Iterable[bytes]) -> None:
        self._wanted: set[bytes] = set()
        self._pieces: set[int] = set()
        self.places = 0
        self.size_bytes = 0
        self.want(wanted)

    def want(self, secrets: Iterable[bytes]) -> None:
        """From now on, look for these as well."""
        for form in {form for secret in secrets for form in forms(secret)}:
            assert len(form) >= 15, "too short to be looked for"
            self._wanted.add(form)
            self._pieces.update(memoryview(form[at : at + 8]).cast("Q")[0] for at in range(8))

    def look(self, place: str, data: bytes) -> None:
        """Raises AssertionError if something is there."""
        self.places += 1
        self.size_bytes += len(data)
        whole = memoryview(data)[: len(data) & ~7].cast("Q")
        if self._pieces.isdisjoint(whole):
            return
        hits = sum(form in data for form in self._wanted)
        assert not hits, f"in the clear: {hits} forms of what is secret, in {place}"

    def look_into(self, folder: Path, *but: str) -> None:
        """Every file below."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in but:
                self.look(str(path), path.read_bytes())


def run(scale: Scale, folder: Path) -> Figures:
    """Say a lot of secrets, and find none of them."""
    count = scale.of(50, 1_000)
    mark = f"canary{secrets.token_hex(12)}"
    ledger = Ledger()
    with MortalRelay(folder / "relay", config=CONFIG) as relay:
        relay.start()
        with Pair(relay, ledger, folder) as pair:
            pair.say(2)
            pair.finish()
            half = count // 2
            keys = _talk(pair, mark, half)
            searched = Searched([mark.encode(), *keys])
            searched.look_into(folder, KEY_FILE)  # while all of it runs
            _look_into_backup(relay, folder / "snapshot", searched)
            wait_until(lambda: pair.bob.count("@alice") >= 2 + half, "all of it at Bob's")
            wait_until(lambda: pair.alice.count("@bob") >= 2 + 2 * half, "all of it at Alice's")
        _talk_as_programs(relay, folder, mark, searched)
        keys |= {key for name in ("alice", "bob") for key in _keys_on_disk(folder / name)}
        searched.want(keys)
        with relay.connect() as stranger:  # what is refused is not repeated in the log
            stranger.send(mark.encode())
            stranger.expect(Error)
        wait_until(lambda: "refused with bad_message" in relay.log_text, "a line for debugging")
        for words in (("users",), ("rooms",), ("stats",), ("check",)):
            asked = relay.admin(*words)
            assert asked.returncode == 0, asked.stderr
            searched.look(f"saltline-server {words[0]}", (asked.stdout + asked.stderr).encode())
        assert relay.stop() == 0
        searched.look_into(folder, KEY_FILE)
        _look_into_backup(relay, folder / "backup", searched)
    return {
        "canary texts": 2 * half,
        "keys": len(keys),
        "places": searched.places,
        "MB searched": searched.size_bytes // 1_000_000,
        "found": 0,
    }


def _talk(pair: Pair, mark: str, half: int) -> set[bytes]:
    """Both say so much; the keys that they had meanwhile."""
    keys: set[bytes] = set()
    for number in range(half):
        pair.alice.send("bob", f"{mark} {number}")
        pair.bob.send("alice", f"{mark} {number} back")
        if number % (half // _MOMENTS) == 0:
            keys |= {key for each in (pair.alice, pair.bob) for key in each._read(_keys_in)}
    wait_until(lambda: not pair.alice.status().queued, "all of it on the relay")
    keys |= {key for each in (pair.alice, pair.bob) for key in each._read(_keys_in)}
    assert len(keys) >= 50, f"only {len(keys)} keys"
    return keys


def _keys_on_disk(folder: Path) -> set[bytes]:
    """Those of a profile that nobody has open."""
    profile = Profile(folder)
    with Client.open(profile, profile.unlock(None)) as client:
        return client._read(_keys_in)


def _keys_in(vault: Vault) -> set[bytes]:
    """Everything secret that a vault holds, and the vault's own key."""
    own = views.own_keys(vault)
    assert own is not None
    keys = {own.to_bytes()[-64:-32], own.to_bytes()[-32:], vault._key}
    for (pair,) in vault.db.execute("SELECT pair FROM prekeys"):
        keys.add(PrekeyPair.from_bytes(pair).secret)
    for (state,) in vault.db.execute("SELECT state FROM sessions"):
        keys |= _keys_of_session(Session.from_bytes(state))
    return keys - {b""}


def _keys_of_session(session: Session) -> set[bytes]:
    """Root, chains, the next message's, and our halves; some are empty."""
    turn, receiving = session.ratchet.turn, session.ratchet.receiving
    keys: set[bytes] = {turn.root}
    if isinstance(turn, TheirTurn):
        keys |= {turn.ours.secret, turn.ours.kem_seed}
        if turn.sending is not None:
            keys |= {turn.sending.key, turn.sending.step(session.id)[1]}
    if receiving is not None:
        keys |= {receiving.key, receiving.step()[1]}
    return keys


def _look_into_backup(relay: MortalRelay, copy: Path, searched: Searched) -> None:
    """Copy the folder, of a stopped relay or at one moment; it is whole, and a relay serves it."""
    with relay.frozen():
        shutil.copytree(relay.data, copy / "data", ignore=shutil.ignore_patterns("*.sock"))
    with MortalRelay(copy, data=copy / "data", config=CONFIG) as restored:
        restored.check()
        searched.look_into(copy)
        restored.start()
        assert restored.stop() == 0
        searched.look_into(copy)
    shutil.rmtree(copy)


def _talk_as_programs(relay: MortalRelay, folder: Path, mark: str, searched: Searched) -> None:
    """The same with programs, whose memory must never reach a disk and whose names say nothing."""
    alice, bob = folder / "alice", folder / "bob"
    with Process(alice, "recv", "--follow") as first, Process(bob, "recv", "--follow") as second:
        wait_until(lambda: owner_serves(alice) and owner_serves(bob), "both own their profiles")
        sent = subprocess.run(
            [*PROGRAM, "--profile", alice, "send", "bob", "-", "--wait", "delivered"],
            input=f"{mark} from a program",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert sent.returncode == 0, sent.stderr
        searched.look("what saltline send says of itself", sent.stderr.encode())
        wait_until(lambda: mark in second.line(), "shown")
        searched.look_into(folder, KEY_FILE)
        if sys.platform.startswith("linux"):
            for pid in (relay.pid, first.process.pid, second.process.pid):
                _look_at_process(pid, searched)
        for program in (first, second):
            ended = program.end(signal.SIGTERM)
            searched.look("what a client says of itself", ended.err.encode())


def _look_at_process(pid: int, searched: Searched) -> None:
    process = Path(f"/proc/{pid}")
    limits = (process / "limits").read_text()
    assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE), limits
    for name in ("cmdline", "environ", "comm"):
        searched.look(f"{name} of {pid}", (process / name).read_bytes())
    for descriptor in (process / "fd").iterdir():
        searched.look("the name of an open file", os.readlink(descriptor).encode())
