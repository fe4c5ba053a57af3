"""The main job on the real programs: nothing to answer, nothing left behind.

A relay starts, Alice and Bob register, Alice writes while Bob is away, and the relay's disk is
searched for her words and her name before Bob reads them.
"""

import json
import sys
from pathlib import Path

import apsw
from programs import DemoFailed, RunningRelay, User, running_relay, temporary_folder

SECRET = "The key is under the third flower pot."
PUBLIC = "Hello, everybody in the lobby!"


def say(text: str = "") -> None:
    print(text, flush=True)


def step(title: str) -> None:
    say(f"\n--- {title}")


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise DemoFailed(what)


def show_the_mailbox(relay: RunningRelay) -> None:
    """What is on the relay's disk of a message that waits, read from its database."""
    database = apsw.Connection(
        str(next(relay.folder.glob("*.db"))), flags=apsw.SQLITE_OPEN_READONLY
    )
    tables = [
        name
        for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if any(column[1] == "envelope" for column in database.execute(f"PRAGMA table_info({name})"))
    ]
    expect(len(tables) == 1, f"one table holds envelopes, not {tables}")
    names = [column[1] for column in database.execute(f"PRAGMA table_info({tables[0]})")]
    rows = database.execute(f"SELECT * FROM {tables[0]}").fetchall()
    expect(len(rows) == 1, f"one envelope waits, not {len(rows)}")
    for name, value in zip(names, rows[0], strict=True):
        shown = value
        if isinstance(value, bytes):
            shown = f"{len(value)} bytes: {value[:24].hex(' ')} ..."
        say(f"    {name:12} {shown}")
    flat = b"\0".join(v if isinstance(v, bytes) else str(v).encode() for v in rows[0])
    database.close()
    files = [path for path in relay.folder.rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files)
    expect(SECRET.encode() not in everything, "the text is on the relay's disk")
    expect(b"alice" not in flat, "the sender is in the mailbox")
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
            say(f"    {json.loads(user.run('whoami', '--json'))['username']}: registered")

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
