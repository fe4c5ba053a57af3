"""One profile, several commands: the first owns it and serves the others; any may take over."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from saltline.client.control import ControlClient, ControlServer, OwnerGone
from saltline.client.failures import no_account
from saltline.client.messenger import Client
from saltline.client.model import ExitCode, Refused
from saltline.client.profile import Busy, Profile
from saltline.client.requests import AnyRequest, Reply
from saltline.client.service import Service

_RETRY_S: Final = 0.05
# Who was turned away has heard so by then; after more than this an owner was at work, and ended.
_SERVED_S: Final = 1.0

# A command that is ended cleans up: neither half opened nor half closed is what it leaves.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AskKey = Callable[[Profile], bytes]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Everything that a request brought; nothing was shown yet if the owner went away before."""

    replies: list[Reply]
    refused: Refused | None = None


def _collect(replies: Iterator[Reply]) -> _Outcome:
    found: list[Reply] = []
    try:
        for reply in replies:
            found.append(reply)
    except Refused as refused:
        return _Outcome(found, refused)
    return _Outcome(found)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait for the end of the block. Threads that start in it never see them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Port(Protocol):
    def perform(self, request: AnyRequest) -> _Outcome: ...
    def close(self) -> None: ...


class _Own:
    """This process owns the profile, and serves the others meanwhile."""

    def __init__(self, profile: Profile, key: bytes) -> None:
        self._client = Client.open(profile, key)
        self._service = Service(self._client)
        self._control: ControlServer | None = None
        try:
            self._control = ControlServer(profile, self._service)
        except BaseException:
            self.close()
            raise

    def perform(self, request: AnyRequest) -> _Outcome:
        return _collect(self._service.perform(request, self))

    def close(self) -> None:
        self._service.leave()
        if self._control is not None:
            self._control.close()
        self._client.close()


class _Others:
    """Another process owns the profile."""

    def __init__(self, profile: Profile) -> None:
        self._control = ControlClient(profile.folder)

    def perform(self, request: AnyRequest) -> _Outcome:
        return _collect(self._control.perform(request))

    def close(self) -> None:
        self._control.close()


class SharedProfile:
    """Performs requests wherever the profile is open, or opens it; use as a context manager.

    `ask_key` is asked only where this process has to open the vault. Waits up to `timeout_s` for a
    process that owns the profile and does not serve yet, or any more, or serves too many.
    """

    def __init__(self, profile: Profile, ask_key: AskKey, timeout_s: float) -> None:
        self._profile = profile
        self._ask_key = ask_key
        self._timeout_s = timeout_s
        self._port: _Port | None = None

    def __enter__(self) -> "SharedProfile":
        """Raises Refused: TIMED_OUT where the owner did not serve in time."""
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the profile back, if it was ours. Again: nothing."""
        with undisturbed():
            port, self._port = self._port, None
            if port is not None:
                try:
                    port.close()
                finally:
                    self._profile.release()  # where it was ours

    def perform(self, request: AnyRequest) -> list[Reply]:
        """All replies. Raises Refused: what came before that is lost, see `stream`."""
        return list(self.stream(request))

    def stream(self, request: AnyRequest) -> Iterator[Reply]:
        """The replies, those before a refusal too. Raises Refused.

        When the owner goes away in the middle, the request is repeated where the profile is then;
        a text that was queued already is found again by its id, not queued twice.
        """
        outcome = self._repeat(request)
        yield from outcome.replies
        if outcome.refused is not None:
            raise outcome.refused

    def look_again(self, request: AnyRequest) -> list[Reply]:
        """What came of it, after a signal broke off another request; asks nobody for a key."""
        port = self._port
        if port is None:
            return []
        if isinstance(port, _Own):
            return port.perform(request).replies
        try:
            # A new connection: the old one may be in the middle of a reply.
            fresh = _Others(self._profile)
        except OSError:
            return []
        try:
            return fresh.perform(request).replies
        except OwnerGone:
            return []
        finally:
            fresh.close()

    def _repeat(self, request: AnyRequest) -> _Outcome:
        """Wherever the profile is then. An owner that serves too many hangs up at once."""
        deadline: float | None = None
        while True:
            port, began = self._opened(), time.monotonic()
            try:
                return port.perform(request)
            except OwnerGone:
                self.close()
            now = time.monotonic()
            if deadline is None or now - began >= _SERVED_S:
                deadline = now + self._timeout_s
            elif now >= deadline:
                raise Refused(
                    f"Another saltline has the profile {self._profile.folder} open, and serves as"
                    " many commands as it can. Try again when some of them have ended.",
                    ExitCode.TIMED_OUT,
                )
            time.sleep(_RETRY_S)

    def _opened(self) -> _Port:
        if self._port is None:
            self._open()
        assert self._port is not None
        return self._port

    def _open(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._profile.acquire()
            except Busy as busy:
                try:
                    with undisturbed():
                        self._port = _Others(self._profile)
                    return
                except OSError:  # it is about to serve, or to end
                    if time.monotonic() >= deadline:
                        raise Refused(busy.sentence, ExitCode.TIMED_OUT) from None
                    time.sleep(_RETRY_S)
            else:
                return self._own()

    def _own(self) -> None:
        try:
            if not self._profile.is_set_up:
                raise no_account()
            key = self._ask_key(self._profile)
            with undisturbed():
                self._port = _Own(self._profile, key)
        except BaseException:
            self._profile.release()
            raise
