"""Somebody who wants every name there is, in a process of their own.

python -m tests.torture.registrars PORT SECONDS PREFIX ADDRESS...

Accounts PREFIX0, PREFIX1 … are asked for from these addresses in turn, as fast as it can. At the
end each address is printed, with how many it got, and how many times it was told to wait.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Final

from saltline.protocol.errors import ErrorCode
from saltline.protocol.messages import decode_relay_message
from saltline.protocol.to_client import Error, Welcome
from tests.server.wire_client import WireClient

_TRIES: Final = 25


def register_on(
    port: int, seconds: float, prefix: str, addresses: Sequence[str]
) -> Mapping[str, tuple[int, int]]:
    """Of each address: (accounts, refusals). Another answer is a failure.

    Each is tried _TRIES times at least, whatever the time.
    """
    end_s = monotonic() + seconds
    got = dict.fromkeys(addresses, 0)
    refused = dict.fromkeys(addresses, 0)
    for number in count():
        if number >= _TRIES * len(addresses) and monotonic() >= end_s:
            break
        source = addresses[number % len(addresses)]
        name = f"{prefix}{number:06}"  # of one length: no two look alike
        with WireClient(port, name, source=source) as stranger:
            stranger.ask_to_register()
            answer = decode_relay_message(stranger.receive())
        if isinstance(answer, Welcome):
            got[source] += 1
            continue
        assert isinstance(answer, Error), answer
        assert answer.code == ErrorCode.RATE_LIMITED, answer
        assert answer.retry_after_ms > 0
        refused[source] += 1
    return {each: (got[each], refused[each]) for each in addresses}


class Registrars:
    """Several of them at once, each with its share of the addresses."""

    def __init__(self, port: int, seconds: float, addresses: Sequence[str], processes: int) -> None:
        self._began_s = monotonic()
        self._running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.torture.registrars", str(port), str(seconds)]
                + [f"mass{len(addresses)}x{place}y", *addresses[place::processes]],
                stdout=subprocess.PIPE,
                text=True,
            )
            for place in range(min(processes, len(addresses)))
        ]

    @property
    def are_busy(self) -> bool:
        return any(each.poll() is None for each in self._running)

    def close(self) -> None:
        for each in self._running:
            with each:
                each.kill()

    def told(self, a_minute: int) -> tuple[int, int]:
        """(accounts, refusals), at their end.

        Raises AssertionError if an address got more accounts than it may have, or was refused one.
        """
        outputs = [each.communicate()[0] for each in self._running]
        assert all(each.returncode == 0 for each in self._running), outputs
        allowed = a_minute * (1 + (monotonic() - self._began_s) / 60) + 1
        accounts = refusals = 0
        for line in "".join(outputs).splitlines():
            address, got, refused = line.split()
            assert int(got) <= allowed, line
            assert int(got) >= a_minute, line
            accounts, refusals = accounts + int(got), refusals + int(refused)
        return accounts, refusals


if __name__ == "__main__":
    port, seconds, prefix, *addresses = sys.argv[1:]
    for address, numbers in register_on(int(port), float(seconds), prefix, addresses).items():
        print(address, *numbers)
