"""Honest people who come while others fill, flood or fetch: each has to be served in time."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from saltline.crypto.keys import IdentityKeys
from tests.server.edge import CutOff
from tests.server.wire_client import WireClient
from tests.torture.measured import MeasuredRelay, Waits
from tests.torture.trial import Scale

SERVED_WITHIN_S: Final = 2.0
_GIVE_UP_S: Final = 30.0
_BETWEEN_S: Final = 0.02
_FRIENDS: Final = 10  # so that no mailbox is ever full
# Where nobody else of a trial registers, so that they use up nobody's number of accounts.
_HOME: Final = "127.98.1.1"
# How a connection ends that the relay cut off. Anything else, a wrong answer or none, is a failure.
_ENDS: Final = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, CutOff)
# So many, and one more in so many visits.
_CUT_OFF_MAX: Final = 3
_CUT_OFF_ONE_IN: Final = 100


class Visitors:
    """Each connects once from an address of their own, writes, and leaves."""

    def __init__(self, relay: MeasuredRelay) -> None:
        self._relay = relay
        self.visits = 0
        self.waits = Waits()
        self.cut_off = 0
        for place in range(_FRIENDS):
            with WireClient(relay.port, f"friend{place}", source=_HOME) as friend:
                friend.register()
        with WireClient(relay.port, "visitor", source=_HOME) as visitor:
            self._keys: IdentityKeys = visitor.register()

    def visit(self) -> None:
        """Connect, TLS, hello, login, an envelope, its acknowledgement."""
        number = self.visits
        self.visits += 1
        source = f"127.99.{number // 250 % 250 + 1}.{number % 250 + 1}"
        began_s = monotonic()
        while True:
            try:
                with WireClient(self._relay.port, "visitor", source=source) as visitor:
                    visitor.log_in(self._keys)
                    visitor.submit(f"friend{number % _FRIENDS}", b"x" * 3632)
                break
            except _ENDS:  # like everyone, they try again
                self.cut_off += 1
                assert monotonic() < began_s + _GIVE_UP_S, "an honest client is not served at all"
        self.waits.each_s.append(monotonic() - began_s)

    @contextmanager
    def throughout(self) -> Iterator[None]:
        """One after the other, from now to the end of the block; what fails there, fails here."""
        is_over = threading.Event()
        failures: list[BaseException] = []

        def come() -> None:
            try:
                self.visit()
                while not is_over.wait(_BETWEEN_S):
                    self.visit()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=come, name="visitors", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(2 * _GIVE_UP_S)
        if failures:
            raise failures[0]

    def told(self) -> str:
        """Median and 95th percentile, the longest, and of how many; for the figures."""
        waits = self.waits
        usual = f"{waits.told()}, " if len(waits.each_s) > 1 else ""
        return f"{usual}{waits.longest_s * 1000:.0f} the longest of {len(waits.each_s)}"

    def were_served(self, scale: Scale) -> None:
        """Raises AssertionError if there was no visit yet, a long one, or if many were cut off.

        The quick form, beside other tests, allows three times as long.
        """
        assert self.waits.each_s, "nobody came"
        rarely = _CUT_OFF_MAX + self.visits // _CUT_OFF_ONE_IN
        assert self.cut_off <= rarely, f"cut off {self.cut_off} times in {self.visits} visits"
        longest_s = self.waits.longest_s
        allowed_s = scale.of(3, 1) * SERVED_WITHIN_S
        assert longest_s <= allowed_s, f"an honest client was served only after {longest_s:.2f} s"
