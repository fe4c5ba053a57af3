"""What it costs to take in a mailbox: `saltline recv --once` on 10,000 waiting messages.

    python -m benchmarks.receive [--messages 10000] [--profile]

A relay and two profiles are made in a temporary folder; one sends while the other is away; then the
real command runs once, with its CPU time from the operating system. With --profile the same work is
done again inside this process, under a profiler, to say where the time goes.
"""

import argparse
import cProfile
import json
import os
import pstats
import resource
import subprocess
import time
from concurrent.futures import Future

from demo.programs import BIN, User, running_relay, temporary_folder

from saltline.client.messenger import Client
from saltline.client.model import Delivery
from saltline.client.profile import Profile

TEXT = "great, sending the log".ljust(200)
LAYERS = (
    ("libsodium, OpenSSL (crypto)", ("nacl", "cryptography", "_sodium", "rust")),
    ("saltline.crypto", ("/crypto/",)),
    ("SQLite and saltline.client.vault", ("apsw", "/client/vault/", "execute", "fetch")),
    ("saltline.client, the core", ("/client/",)),
    ("saltline.protocol, msgpack", ("/protocol/", "msgspec")),
)


def open_client(user: User) -> Client:
    profile = Profile(user.profile)
    return Client.open(profile, profile.unlock(None))


def send_all(user: User, count: int) -> float:
    """Queue `count` messages, and wait until the relay has them; seconds."""
    began = time.perf_counter()
    with open_client(user) as client:
        for number in range(count):
            last = client.send("bob", f"{number} {TEXT}")
        client.start()
        while True:
            line = client.line(last.row)
            assert line is not None
            if line.delivery >= Delivery.RELAYED:
                break
            time.sleep(0.05)
    return time.perf_counter() - began


def receive_with_the_command(user: User, count: int) -> tuple[float, float, int]:
    """(seconds, CPU seconds, peak KiB) of one `recv --once`; checks what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [
            BIN / "saltline",
            "--profile",
            user.profile,
            "recv",
            "--once",
            "--json",
            "--timeout",
            "600",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    bodies = [json.loads(line) for line in done.stdout.splitlines()]
    numbers = [int(m["body"].split()[0]) for m in bodies if m["conversation"] == "@alice"]
    assert numbers == list(range(count)), "every message once, in order"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, after.ru_maxrss


def receive_under_the_profiler(user: User) -> None:
    """Where the engine's thread spends its time, by layer."""
    profiler = cProfile.Profile()
    client = open_client(user)
    with client:
        run = client._engine._core_turn  # the one place where the core works

        def profiled(turn: object) -> None:
            profiler.enable()
            try:
                run(turn)  # type: ignore[arg-type]
            finally:
                profiler.disable()

        client._engine._core_turn = profiled  # type: ignore[method-assign]
        client.start()
        idle: Future[None] = client.when_idle()
        idle.result(600)
    print_layers(pstats.Stats(profiler))


def print_layers(stats: pstats.Stats) -> None:
    own = {name: 0.0 for name, _ in LAYERS} | {"the rest": 0.0}
    for (file, _, function), (_, _, seconds, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        where = f"{file} {function}"
        layer = next((n for n, marks in LAYERS if any(m in where for m in marks)), "the rest")
        own[layer] += seconds
    total = sum(own.values())
    print(f"\nWhere the core's time goes ({total:.2f} s under the profiler, which slows Python):")
    for name, seconds in sorted(own.items(), key=lambda each: -each[1]):
        print(f"  {name:36}{seconds / total:7.1%}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--messages", type=int, default=10_000)
    arguments.add_argument("--profile", action="store_true")
    options = arguments.parse_args()
    count = options.messages
    with temporary_folder("receive") as folder, running_relay(folder / "relay") as relay:
        alice, bob = User(folder / "alice"), User(folder / "bob")
        for user in (alice, bob):
            user.register(relay, user.profile.name)
        bob.run("recv", "--once")
        seconds = send_all(alice, count)
        print(f"sent: {count} messages, each on two disks, in {seconds:.1f} s", flush=True)
        seconds, cpu, peak = receive_with_the_command(bob, count)
        print(
            f"received: {seconds:.1f} s, {cpu / count * 1e6:.0f} µs CPU a message"
            f" ({cpu:.1f} s with start-up), {peak / 1024:.0f} MiB at most"
        )
    if options.profile:
        profile_again(count)


def profile_again(count: int) -> None:
    """The same from the beginning, with the receiver in this process."""
    with temporary_folder("receive") as folder, running_relay(folder / "relay") as relay:
        alice, bob = User(folder / "alice"), User(folder / "bob")
        for user in (alice, bob):
            user.register(relay, user.profile.name)
        send_all(alice, count)
        receive_under_the_profiler(bob)


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    main()
