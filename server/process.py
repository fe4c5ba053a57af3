"""The relay as a process: limits, log, signals, and what it prints."""

import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Final

from saltline.protocol.text import sanitise
from saltline.server.config import Config
from saltline.server.driver import log
from saltline.server.errors import UsageError, where
from saltline.server.relay import Relay

EXIT_DONE: Final = 0
EXIT_USAGE: Final = 1
EXIT_INTERNAL: Final = 2
# macOS calls its limit infinite and refuses more than this (OPEN_MAX).
_OPEN_FILES_FALLBACK: Final = 10_240

_MEANT: Final = {signal.SIGTERM: "stop", signal.SIGINT: "stop", signal.SIGHUP: "reload"}


class _OneLine(logging.Formatter):
    """Timestamp, level and one sanitised line: no traceback, no foreign control characters."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        record.exc_info = record.exc_text = record.stack_info = None
        return sanitise(super().format(record), newlines=False)


def set_up_log(level: int) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("saltline")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)
    logging.raiseExceptions = False  # a stderr that is gone must not stop the relay


def calm_collector() -> None:
    """Look for garbage cycles seldom, and not among what stays.

    Reference counts free nearly everything here. With Python's own thresholds a crowd that logs in
    cost some 3 % of its time in collections that found nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def harden() -> None:
    """Secrets in no core dump, files for this user alone, and as many connections as may be."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _OPEN_FILES_FALLBACK):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        break


def serve(load: Callable[[], Config]) -> int:
    """Run a relay until a signal or a failure ends it; the exit code. Raises UsageError.

    SIGTERM and SIGINT finish what was acknowledged and stop; a second one ends at once. SIGHUP
    reads the configuration and the certificate again (`load`).
    """
    config = load()
    set_up_log(config.log_level)
    harden()
    commands: SimpleQueue[str] = SimpleQueue()  # its `put` may interrupt its own `get`
    relay = Relay(config, on_failure=lambda: commands.put("failed"))
    with _signals(commands), _last_net(relay):
        with _signals_for_this_thread_alone():
            relay.start()
        calm_collector()
        try:
            _announce(relay)
            while _next_of(commands) == "reload":
                _reload(relay, load)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            log.info("The relay stops.")
            relay.stop()
    if relay.failure:
        return EXIT_INTERNAL
    log.info("The relay has stopped.")
    return EXIT_DONE


def _next_of(commands: SimpleQueue[str]) -> str:
    """Wait for a command. One reload does for all that wait, and none where the relay is to end."""
    command = commands.get()
    with suppress(Empty):
        while command == "reload":
            command = commands.get_nowait()
    return command


@contextmanager
def _signals(commands: SimpleQueue[str]) -> Iterator[None]:
    """Signals become commands."""
    before = {
        number: signal.signal(number, lambda *_, command=command: commands.put(command))
        for number, command in _MEANT.items()
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_for_this_thread_alone() -> Iterator[None]:
    """Threads begun in this block block the signals: the system may give them to any that does not.

    Python runs handlers in the main thread, and nothing would wake that from its wait.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _MEANT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _last_net(relay: Relay) -> Iterator[None]:
    """No thread dies in silence, not even one that does not report its faults itself."""
    before = threading.excepthook
    threading.excepthook = lambda dead: relay.fault(
        dead.thread.name if dead.thread is not None else "a thread",
        dead.exc_value or dead.exc_type(),
    )
    try:
        yield
    finally:
        threading.excepthook = before


def _announce(relay: Relay) -> None:
    lines = [
        f"Listening on {relay.address}",
        f"Pin of its key: {relay.pin}",
        "To open an account, a user types:",
    ]
    if vouched := relay.register_line_vouched:
        lines += [
            f"  {vouched}",
            "or, where the system knows no authority that vouches for it (the pin always works):",
        ]
    lines.append(f"  {relay.register_line}")
    try:
        print("\n".join(lines), flush=True)
    except OSError:
        log.warning("Nobody reads what the relay prints; its pin is %s.", relay.pin)
    log.info("The relay listens on %s.", relay.address)


def _reload(relay: Relay, load: Callable[[], Config]) -> None:
    try:
        config = load()
        relay.reload(config)
    except UsageError as error:
        log.error("Nothing was reloaded. %s", error)
        return
    except Exception as error:  # whatever is wrong with a new file, the relay goes on as it was
        log.error("Nothing was reloaded: it failed (%s). Please report this line.", where(error))
        return
    logging.getLogger("saltline").setLevel(config.log_level)
    log.info("Configuration and certificate were reloaded; the pin is %s.", relay.pin)
    if kept := relay.needs_restart(config):
        log.warning("Changed only by a restart: %s.", ", ".join(kept))
