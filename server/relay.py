"""A whole relay in this process: core, store, threads and TLS, put together.

    acceptor -> handshake threads -> workers <-> core (one lock) -> storage thread -> worker 0

Started and stopped as an object, so that a test has a relay in its own process:

    with Relay(Config(listen=RelayAddress("127.0.0.1", 0), data=folder)) as relay:
        connect(relay.address.port)
"""

import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, Self

from saltline.crypto.keylog import LogKey
from saltline.crypto.signatures import certificate_payload
from saltline.protocol.names import BadName, RelayAddress, parse_relay_address
from saltline.protocol.text import sanitise
from saltline.server import events
from saltline.server.admin import AdminServer
from saltline.server.administration import AdminRequest
from saltline.server.certificates import Certificate, load, load_or_make, name_warning
from saltline.server.clock import Clock
from saltline.server.config import Config, known_host
from saltline.server.core import RelayCore
from saltline.server.data_folder import DataFolder
from saltline.server.driver import CoreDriver, log
from saltline.server.errors import UsageError, where
from saltline.server.handshakes import WAITING_MAX, HandshakeThread, TlsState
from saltline.server.listener import Acceptor, listen
from saltline.server.overseer import Overseer
from saltline.server.settings import CertificateStatement, Registration, Settings
from saltline.server.store.interface import Outcome, Store, StoreError, StoreUnusable
from saltline.server.store.sqlite import SqliteStore
from saltline.server.store.thread import StorageThread
from saltline.server.watched_store import WatchedStore
from saltline.server.work import Adopt, Finish, Stored
from saltline.server.workers import Worker

# For the database, the log, the admin and what Python opens.
DESCRIPTORS_KEPT: Final = 64
# Some 50 ms of work for the core and the store.
LOGINS_AT_ONCE: Final = 128
MakeCore = Callable[
    [Settings, LogKey, CertificateStatement, Callable[[int], bytes]],
    RelayCore,
]
_RELOADED: Final = {"settings", "certificate", "key", "log_level"}
# Of the interval at which a busy worker reads. What it read at once has waited, and waits no more;
# a worker with so much to do that it never waits still shares its commits.
_COMMIT_PART: Final = 0.85
_THREAD_END_S: Final = 5.0
_POLL_S: Final = 0.01


class Relay:
    """`start` returns when clients can connect; `stop` when nothing of it is left.

    Whatever kills a thread, or a disk that fails, ends the relay: `wait` returns and `failure` is
    the sentence; `stop` is still to be called.
    """

    def __init__(
        self,
        config: Config,
        *,
        open_store: Callable[[Path, bytes], Store] = SqliteStore,
        make_core: MakeCore = RelayCore,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.failure = ""
        self.address = config.listen  # with the true port, once started
        self._open_store = open_store
        self._make_core = make_core
        self._on_failure = on_failure
        self._ended = threading.Event()
        self._cleanup = ExitStack()
        self._certificate: Certificate
        self._log_key: LogKey
        self._tls: TlsState
        self._driver: CoreDriver
        self._acceptor: Acceptor
        self._admin: AdminServer
        self._storage: StorageThread
        self._workers: list[Worker] = []
        self._handed_over = 0
        self._turn = count()  # whose worker is next; safe between threads
        self._handshakes: list[HandshakeThread] = []
        self._overseer: Overseer
        self._is_running = False
        self._descriptors_max = _descriptors_max()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- what users need to know ------------------------------------------------------------------

    @property
    def pin(self) -> str:
        """The TLS key's pin, `sha256:HEX`."""
        return self._certificate.pin

    @property
    def public_address(self) -> RelayAddress:
        """Where users find it: under its own certificate's name, else where it listens."""
        if named := self._named_host:
            return RelayAddress(named, self.address.port)
        if known_host(self.address):
            return self.address
        try:
            return RelayAddress(parse_relay_address(socket.gethostname()).host, self.address.port)
        except BadName:
            return RelayAddress("localhost", self.address.port)

    @property
    def register_line(self) -> str:
        """What a user types to open an account; the pin proves it, whatever the certificate."""
        return f"{self._register_command} --pin {self.pin}{self._invite}"

    @property
    def register_line_vouched(self) -> str:
        """The same for who knows the authority of the admin's certificate; "" if there is none."""
        return f"{self._register_command}{self._invite}" if self._named_host else ""

    @property
    def _register_command(self) -> str:
        return f"saltline register --relay {self.public_address} --user NAME"

    @property
    def _invite(self) -> str:
        needs_invite = self.config.settings.registration is Registration.INVITE
        return " --invite" if needs_invite else ""  # the code is asked for

    @property
    def _named_host(self) -> str:
        """The first host that an admin's certificate names, or ""."""
        if self.config.certificate is None:
            return ""
        for name in self._certificate.names:
            with suppress(BadName):
                return parse_relay_address(f"[{name}]" if ":" in name else name).host
        return ""

    # --- start ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve. Raises UsageError, after undoing what was begun."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        config, cleanup = self.config, self._cleanup
        folder = DataFolder.open(config.data, create=True)
        cleanup.callback(folder.close)
        folder.lock()
        self._log_key = LogKey.from_seed(folder.log_key_seed(os.urandom))
        self._certificate, statement = self._load_certificate(config)
        self._tls = (self._certificate.context, statement)
        listening = listen(config.listen)
        self._acceptor = Acceptor(listening, self._handshakes, self._has_room, self.fault)
        cleanup.callback(self._acceptor.close)
        self.address = RelayAddress(config.listen.host, int(listening[0].getsockname()[1]))
        self._admin = AdminServer(folder.path, self._submit_admin, self.fault)
        cleanup.callback(self._admin.close)
        self._driver = CoreDriver(
            self._make_core(config.settings, self._log_key, statement, os.urandom),
            Clock(),
            self._admin.answer,
            self._fail,
        )
        self._make_threads()
        try:
            store = self._open_store(folder.database, self._log_key.relay_id)
        except StoreUnusable as error:
            raise UsageError(str(error)) from None
        self._start_threads(WatchedStore(store, self.fault))
        self._warn()

    def _make_threads(self) -> None:
        config, cleanup = self.config, self._cleanup
        for index in range(config.workers):
            worker = Worker(
                index,
                config.workers,
                self._driver,
                self.fault,
                deadlines=config.deadlines,
                flush_interval_s=config.flush_interval_ms / 1000,
            )
            cleanup.callback(worker.close)
            self._workers.append(worker)
        for index in range(config.handshake_threads):
            handshakes = HandshakeThread(
                index,
                lambda: self._tls,
                self._hand_over,
                self.fault,
                deadline_s=config.deadlines.handshake_s,
                per_address_max=lambda: self.config.settings.unauthenticated_per_address,
                waiting_max=min(
                    WAITING_MAX, self._descriptors_max // (4 * config.handshake_threads)
                ),
                is_swamped=self._is_swamped,
            )
            cleanup.callback(handshakes.close)
            self._handshakes.append(handshakes)

    def _start_threads(self, store: Store) -> None:
        self._storage = StorageThread(store, self._on_stored, self._commit_interval_s)
        self._driver.attach([worker.inbox for worker in self._workers], self._storage.submit)
        try:
            self._storage.start()
        except BaseException:
            store.close()  # nobody else will
            raise
        self._is_running = True
        self._overseer = Overseer([worker.reader.watch for worker in self._workers], self.fault)
        threads: list[Worker | HandshakeThread | AdminServer | Acceptor | Overseer] = [
            *self._workers,
            self._overseer,
            *self._handshakes,
            self._admin,
            self._acceptor,
        ]
        for thread in threads:
            thread.start()

    def _is_swamped(self) -> bool:
        waiting = self._handed_over - sum(worker.adopted for worker in self._workers)
        return max(self._driver.logins, waiting) > LOGINS_AT_ONCE

    def _commit_interval_s(self) -> float:
        is_busy = any(worker.pace.is_busy for worker in self._workers)
        interval_s = self.config.flush_interval_ms / 1000
        return interval_s * _COMMIT_PART if is_busy else 0.0

    def _load_certificate(self, config: Config) -> tuple[Certificate, CertificateStatement]:
        now = datetime.now(UTC)
        if config.certificate is not None and config.key is not None:
            certificate = load(config.certificate, config.key, now)
            if warning := name_warning(certificate, known_host(config.listen)):
                log.warning("%s", warning)
        else:
            here = (socket.gethostname(), "localhost", "127.0.0.1", "::1")
            host = config.listen.host
            names = (host, *here) if known_host(config.listen) else here
            certificate = load_or_make(config.data, names, now)
        if certificate.warning:
            log.warning("%s", certificate.warning)
        payload = certificate_payload(certificate.spki_hash, certificate.not_after_ms)
        statement = CertificateStatement(
            certificate.spki_hash, certificate.not_after_ms, self._log_key.sign(payload)
        )
        return certificate, statement

    def _warn(self) -> None:
        wanted = self.config.settings.connections_max + DESCRIPTORS_KEPT
        if self._descriptors_max < wanted:
            log.warning(
                "This process may have %d files open: some %d connections, fewer than"
                " connections_max. Raise its limit (ulimit -n, LimitNOFILE).",
                self._descriptors_max,
                max(0, self._descriptors_max - DESCRIPTORS_KEPT),
            )

    # --- while it runs ----------------------------------------------------------------------------

    def reload(self, config: Config) -> None:
        """Take the certificate and the limits from `config`; no connection notices.

        Raises UsageError if the certificate cannot be used; then nothing changed.
        """
        now = self.config
        config = replace(config, listen=now.listen, data=now.data)
        certificate, statement = self._load_certificate(config)
        self._driver.reconfigure(statement, config.settings)
        self._certificate = certificate
        self._tls = (certificate.context, statement)
        self.config = replace(
            now, settings=config.settings, certificate=config.certificate, key=config.key
        )

    def needs_restart(self, config: Config) -> list[str]:
        """Which settings of `config` `reload` leaves as they were."""
        return [
            entry.name
            for entry in fields(config)
            if entry.name not in _RELOADED
            and getattr(config, entry.name) != getattr(self.config, entry.name)
        ]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the relay has failed; False if it still runs."""
        return self._ended.wait(timeout_s)

    def _has_room(self) -> bool:
        held = sum(map(len, self._workers)) + sum(map(len, self._handshakes))
        return held < self._descriptors_max - DESCRIPTORS_KEPT

    def _hand_over(self, adopt: Adopt) -> None:
        turn = next(self._turn)
        self._handed_over = turn + 1  # two threads may swap this: a glance will do
        self._workers[turn % len(self._workers)].inbox.post(adopt)

    def _on_stored(self, results: Sequence[tuple[int, Outcome | StoreError]]) -> None:
        self._workers[0].inbox.post(Stored(results))

    def _submit_admin(self, ticket: int, request: AdminRequest) -> None:
        self._driver.drive([events.asked(ticket, request)])

    def fault(self, thread: str, error: BaseException) -> None:
        """A thread died of a fault of ours: stop. The sentence says where, and quotes nothing."""
        self._fail(
            f"The relay has a fault and stops ({thread}: {where(error)}). What it acknowledged is"
            " on its disk. Please report this line."
        )

    def _fail(self, reason: str) -> None:
        log.critical("%s", sanitise(reason, newlines=False))
        self.failure = self.failure or reason
        self._ended.set()
        self._on_failure()

    # --- stop -------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no new work, finish and answer what was begun, close, end all threads.

        Returns within the deadlines of the configuration; does nothing the second time.
        """
        if self._is_running:
            self._is_running = False
            self._end_threads()
        self._cleanup.close()

    def _end_threads(self) -> None:
        deadlines = self.config.deadlines
        patience_s = deadlines.close_s + _THREAD_END_S
        ended = [self._acceptor.stop(patience_s)]  # first: what it takes, somebody must close
        for handshakes in self._handshakes:
            handshakes.inbox.post(None)
        ended.append(self._admin.stop(patience_s))
        ended += [handshakes.join(patience_s) for handshakes in self._handshakes]
        if not self.failure:
            try:
                self._driver.drive([events.stopping])
            except Exception as error:  # the threads are still to be ended
                self.fault("stop", error)
            give_up_s = monotonic() + deadlines.stop_s
            while not self._driver.is_idle and not self.failure and monotonic() < give_up_s:
                self._ended.wait(_POLL_S)
        for worker in self._workers:
            worker.inbox.post(Finish())
        ended += [worker.join(patience_s) for worker in self._workers]
        ended.append(self._storage.stop(patience_s))
        ended.append(self._overseer.stop(patience_s))
        if not all(ended):
            # The storage thread is no daemon: the process stays until the disk lets it go.
            self._fail(
                "A thread of the relay did not end in time. What it acknowledged is on its disk."
            )


def _descriptors_max() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
