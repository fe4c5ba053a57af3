"""The main job on the real programs: nothing to answer, nothing left behind.

A relay starts, Alice and Bob register, Alice writes while Bob is away, and the relay's disk is
searched for her words and her name before Bob reads them.
"""

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import apsw

from demo.programs import DemoFailed, RunningRelay, User, running_relay, temporary_folder
from saltline.server.store.schema import NUMBER_BITS

SECRET = "The key is under the third flower pot."
# An envelope's row has three columns: whose mailbox and which number in it, arrival, sealed bytes.
WAITING = f"""
    SELECT username, device, received_ms, envelope FROM envelope
    JOIN mailbox ON mailbox.id = envelope.slot >> {NUMBER_BITS}
    JOIN account ON account.id = mailbox.account
"""
PUBLIC = "Hello, everybody in the lobby!"


def say(text: str = "") -> None:
    print(text, flush=True)


def step(title: str) -> None:
    say(f"\n--- {title}")


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise DemoFailed(what)


def show_the_mailbox(relay: RunningRelay) -> None:
    """What is on the relay's disk of a message that waits, read from a copy of its database."""
    copy = relay.folder.with_name("seized")
    shutil.copytree(relay.folder, copy, ignore=shutil.ignore_patterns("*.sock"))
    database = apsw.Connection(str(copy / "relay.db"))
    rows = database.execute(WAITING).fetchall()
    expect(len(rows) == 1, f"one envelope waits, not {len(rows)}")
    recipient, device, received_ms, envelope = rows[0]
    arrived = datetime.fromtimestamp(received_ms / 1000, UTC)
    say(f"    recipient  {recipient}, device {device}")
    say(f"    arrived    {arrived:%Y-%m-%d %H:%M:%S} UTC")
    say(f"    size       {len(envelope)} bytes, as every short message")
    say(f"    sealed     {envelope[:24].hex(' ')} ...")
    database.close()
    files = [path for path in copy.iterdir() if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files)
    expect(SECRET.encode() not in everything, "the text is on the relay's disk")
    expect(b"alice" not in envelope, "the sender is in the mailbox")
    say(f"    Searched {len(files)} files of the relay for the text: not found.")
    say("    Searched the mailbox for Alice's name: not found.")


def show(folder: Path) -> None:
    """The demonstration; raises DemoFailed where it does not show what it should."""
    step("A relay starts, with a certificate that it made itself")
    with running_relay(folder / "relay") as relay:
        say(f"    serving at {relay.address}\n    pin {relay.pin}")
        alice, bob = User(folder / "alice"), User(folder / "bob")

        step("Alice and Bob register; each keypair is made on its owner's computer")
        for user, name in ((alice, "alice"), (bob, "bob")):
            user.register(relay, name)
            say(f"    {json.loads(user.run('whoami', '--json'))['user']}: registered")

        step("Bob is away. Alice writes to him")
        say(f"    alice$ saltline send bob -m '{SECRET}'")
        say("    " + alice.run("send", "bob", "-m", SECRET).strip())

        step("What the relay's disk holds of it")
        show_the_mailbox(relay)

        step("Bob comes online")
        say("    bob$ saltline recv --once")
        lines = bob.run("recv", "--once", "--json").splitlines()
        found = [json.loads(line) for line in lines]
        texts = [message["body"] for message in found if message.get("conversation") == "@alice"]
        expect(texts == [SECRET], f"Bob reads what Alice wrote, not {texts}")
        say(f"    @alice: {texts[0]}")

        step("A public message, signed by its author and readable by the relay")
        alice.run("post", "#lobby", "-m", PUBLIC)
        bob.run("recv", "--once")
        history = [json.loads(line) for line in bob.run("history", "#lobby", "--json").splitlines()]
        posts = [(each["from"], each["body"]) for each in history if each.get("body")]
        expect(("alice", PUBLIC) in posts, f"Bob sees the post in #lobby, not {posts}")
        say(f"    #lobby, PUBLIC, signature checked: <alice> {PUBLIC}")

        step("The safety number, to compare in person or by voice")
        numbers = {safety_number(alice, "bob"), safety_number(bob, "alice")}
        expect(len(numbers) == 1, f"both see one number, not {numbers}")
        say(f"    both see {numbers.pop()}")


def safety_number(user: User, other: str) -> str:
    contacts = [json.loads(line) for line in user.run("contacts", "--json").splitlines()]
    (number,) = [each["safety_number"] for each in contacts if each.get("user") == other]
    expect(len(number.replace(" ", "")) == 60, f"a safety number has 60 digits: {number}")
    return str(number)


def main() -> int:
    with temporary_folder("demo") as folder:
        try:
            show(folder)
        except DemoFailed as failed:
            say(f"\nThe demo failed: {failed}")
            return 1
    say("\nAll of it worked. Try it yourself: make chat")
    return 0


if __name__ == "__main__":
    sys.exit(main())
