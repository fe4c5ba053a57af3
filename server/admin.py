"""The admin's door to a running relay: JSON lines over a unix socket that only its user may open.

A line is an `AdminRequest`, the answer a line with an `AdminResult`; a connection may ask again.
"""

import hashlib
import os
import selectors
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Final

import msgspec

from saltline.protocol.errors import ErrorCode
from saltline.server.administration import AdminRequest, AdminResult, Refused
from saltline.server.data_folder import DataFolder
from saltline.server.effects import Answer
from saltline.server.errors import RelayError, UsageError, why
from saltline.server.listener import ACCEPT_PAUSE_S, is_exhausted
from saltline.server.threads import OnFailure, RelayThread
from saltline.server.wakeup import Inbox

SOCKET_FILE: Final = "admin.sock"
# The path's room in sockaddr_un: 104 bytes with its NUL on macOS, 108 on Linux.
SOCKET_PATH_MAX_BYTES: Final = 103
REQUEST_MAX_BYTES: Final = 4096
ANSWER_MAX_BYTES: Final = 256 * 1024 * 1024
CLIENTS_MAX: Final = 16
ANSWER_TIMEOUT_S: Final = 60.0
_CHUNK_BYTES: Final = 64 * 1024
# Where TMPDIR is too long as well.
_SHORT_FOLDER: Final = Path("/tmp")

_encode: Final = msgspec.json.Encoder().encode
_decode_request: Final = msgspec.json.Decoder(AdminRequest).decode
_decode_result: Final = msgspec.json.Decoder(AdminResult).decode


def socket_path(folder: Path) -> Path:
    """Where the relay of a data folder listens for its admin.

    Where that path is too long for a socket: in a folder of its own below the temporary one.
    """
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    below = Path(f"saltline-{os.geteuid()}-{name}", SOCKET_FILE)
    for path in (folder / SOCKET_FILE, Path(tempfile.gettempdir()) / below):
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES:
            return path
    return _SHORT_FOLDER / below  # 52 bytes at most


def ask(folder: Path, request: AdminRequest, timeout_s: float = ANSWER_TIMEOUT_S) -> AdminResult:
    """Ask the relay that runs on a data folder.

    Raises UsageError if there is none, RelayError if it does not answer.
    """
    path = socket_path(folder)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            if path.parent != folder and not _is_private(path.parent):
                raise UsageError(
                    f"{path.parent} belongs to somebody else, or is open to others: what listens"
                    " there may not be the relay. Nothing was asked. Remove that folder, and"
                    " restart the relay."
                )
            sock.connect(os.fspath(path))
            sock.sendall(_encode(request) + b"\n")
            result: AdminResult = _decode_result(_read_line(sock))
            return result
    except PermissionError:
        raise UsageError(
            f"This user may not administer the relay on {folder}. Use the one that runs it."
        ) from None
    except (FileNotFoundError, ConnectionRefusedError):
        if DataFolder(folder).is_in_use():
            raise RelayError(
                f"A relay runs on {folder}, but {path} does not answer. Is it starting or stopping?"
            ) from None
        raise UsageError(
            f"No relay runs on {folder}. Start it: saltline-server run --data {folder}"
        ) from None
    except (OSError, msgspec.MsgspecError, EOFError) as error:
        raise RelayError(
            f"The relay on {folder} did not answer ({type(error).__name__}). It may have done what"
            " was asked: look before asking again."
        ) from None


def _read_line(sock: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        data = sock.recv(_CHUNK_BYTES)
        if not data or len(line) + len(data) > ANSWER_MAX_BYTES:
            raise EOFError
        line += data
    return bytes(line)


def _is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, and this user's alone. Raises OSError."""
    found = folder.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return is_ours and not stat.S_IMODE(found.st_mode) & 0o077


def _make_private_parent(path: Path) -> None:
    """The folder of a socket outside the data folder: ours alone, or refused."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        is_private = _is_private(path.parent)
    except OSError as error:
        raise UsageError(
            f"The folder {path.parent} cannot be made: {why(error)}. The path of the data folder"
            " is too long for a socket in it: choose a shorter one with --data."
        ) from None
    if not is_private:
        raise UsageError(
            f"{path.parent} belongs to somebody else, or is open to others. The path of the data"
            " folder is too long for a socket in it: choose a shorter one with --data."
        )


def _bind(path: Path, folder: Path) -> socket.socket:
    """Listen, for this user alone. The data folder's lock is held: what is there is a leftover."""
    if path.parent != folder:
        _make_private_parent(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))  # the folder lets nobody else in before the next line
        path.chmod(0o600)
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(f"The admin's socket {path} cannot be made: {why(error)}.") from None
    return listener


class _Client:
    """An admin's program: one request at a time, the next when the answer has left."""

    __slots__ = ("input", "output", "sock", "ticket")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.input = bytearray()
        self.output = memoryview(b"")
        self.ticket = 0  # of the request under way


class AdminServer:
    """Serves the admin on its own thread: `submit` gets (ticket, request), `answer` the result."""

    def __init__(
        self,
        folder: Path,
        submit: Callable[[int, AdminRequest], None],
        on_failure: OnFailure,
    ) -> None:
        self._submit = submit
        self._folder = folder
        self._path = socket_path(folder)
        self._inbox: Inbox[Answer | None] = Inbox()  # None: end
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, _Client] = {}  # by descriptor, oldest first
        self._next_ticket = 1
        self._is_stopping = False
        self._thread = RelayThread("admin", self._run, on_failure)
        try:
            self._listener = _bind(self._path, folder)
        except BaseException:
            self._inbox.wakeup.close()
            self._selector.close()
            raise

    def start(self) -> None:
        """Begin to serve."""
        self._selector.register(self._inbox.wakeup, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()

    def answer(self, answer: Answer) -> None:
        """The result of a request. From any thread."""
        self._inbox.post(answer)

    def stop(self, timeout_s: float) -> bool:
        """Serve nothing more; False if the thread did not end."""
        self._inbox.post(None)
        return self._thread.has_ended(timeout_s)

    def close(self) -> None:
        """Leave nothing behind; after `stop`, or without `start`."""
        self._listener.close()
        self._selector.close()
        self._inbox.wakeup.close()
        self._path.unlink(missing_ok=True)
        if self._path.parent != self._folder:
            with suppress(OSError):
                self._path.parent.rmdir()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        finally:
            for client in self._clients.values():
                client.sock.close()

    def _turn(self) -> None:
        ready = self._selector.select(None if self._inbox.about_to_sleep() else 0)
        self._inbox.awake()
        for key, mask in ready:
            client = self._clients.get(key.fd)
            if key.fileobj is self._inbox.wakeup:
                self._inbox.wakeup.clear()
            elif key.fileobj is self._listener:
                self._accept()
            elif client is not None and mask & selectors.EVENT_WRITE:
                self._write(client)
            elif client is not None:
                self._read(client)
        for item in self._inbox.take():
            if item is None:
                self._is_stopping = True
                continue
            for client in self._clients.values():
                if client.ticket == item.ticket:
                    self._reply(client, item.result)
                    break

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if is_exhausted(error):
                sleep(ACCEPT_PAUSE_S)  # who waits is still there, and would be seen at once
            return
        sock.setblocking(False)
        if len(self._clients) >= CLIENTS_MAX:
            self._drop(next(iter(self._clients.values())))
        self._clients[sock.fileno()] = _Client(sock)
        self._selector.register(sock, selectors.EVENT_READ)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        self._selector.unregister(client.sock)
        client.sock.close()

    def _read(self, client: _Client) -> None:
        try:
            data = client.sock.recv(REQUEST_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.input += data
        if not data or len(client.input) > 2 * REQUEST_MAX_BYTES:
            self._drop(client)
        elif not client.ticket and not client.output:
            self._next_request(client)

    def _next_request(self, client: _Client) -> None:
        line, newline, rest = client.input.partition(b"\n")
        if not newline:
            return
        client.input = rest
        client.ticket = self._next_ticket
        self._next_ticket += 1
        try:
            request: AdminRequest = _decode_request(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            detail = "This relay does not know that request. Is saltline-server of one version?"
            self._reply(client, Refused(code=ErrorCode.BAD_MESSAGE, detail=detail))
            return
        self._submit(client.ticket, request)

    def _reply(self, client: _Client, result: AdminResult) -> None:
        client.ticket = 0
        client.output = memoryview(_encode(result) + b"\n")
        self._selector.modify(client.sock, selectors.EVENT_WRITE)

    def _write(self, client: _Client) -> None:
        try:
            sent = client.sock.send(client.output[:_CHUNK_BYTES])
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.output = client.output[sent:]
        if not client.output:
            self._selector.modify(client.sock, selectors.EVENT_READ)
            self._next_request(client)
