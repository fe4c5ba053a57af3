"""The socket through which the process that owns a profile serves the others: JSON lines.

It stands in the profile folder, mode 0600; where that path is too long for a socket, in a 0700
folder of the runtime directory, whose name the profile keeps. One line asks, several answer:
`{"v":2,"request":{"ask":…}}` gets `{"reply":{…}}` lines and at last `{"done":true}`, with `refused`
and `code` where it was not done.
"""

import os
import selectors
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from saltline.client.failures import Closed, as_refused
from saltline.client.model import ExitCode, Refused
from saltline.client.profile import Profile
from saltline.client.requests import CONTROL_VERSION, AnyRequest, Reply
from saltline.client.service import Service

SOCKET_NAME: Final = "control"
PLACE_FILE: Final = "control.at"
# What fits into sun_path everywhere: macOS has 104 bytes with the final zero.
PATH_MAX_BYTES: Final = 103

# A text of 64 KiB has six characters for each byte when every one is escaped.
LINE_MAX_BYTES: Final = 512 * 1024
_READ_BYTES: Final = 64 * 1024
_CALLERS_MAX: Final = 32
# A caller that has said nothing whole for so long is not one of ours.
_FIRST_LINE_S: Final = 10.0
_CONNECT_S: Final = 5.0
_LEAVE_S: Final = 2.0
_ACCEPT_AGAIN_S: Final = 0.1
_PLACE_MAX_BYTES: Final = 4096


class OwnerGone(Exception):
    """The process that owned the profile went away in the middle of a request."""


class _Asked(Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    request: AnyRequest


class _Answer(Struct, frozen=True, omit_defaults=True):
    reply: Reply | None = None
    done: bool = False
    refused: str = ""
    code: int = 0


_encoder: Final = msgspec.json.Encoder()
_asked_decoder: Final = msgspec.json.Decoder(_Asked)
_answer_decoder: Final = msgspec.json.Decoder(_Answer)
_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class _Lines:
    """Cuts what comes from a socket into bounded lines."""

    def __init__(self, sock: socket.socket, max_bytes: int | None = LINE_MAX_BYTES) -> None:
        self._sock = sock
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def next(self) -> bytes | None:
        """The next line without its end; None at the end. Raises OSError, ValueError (too long)."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if self._max_bytes is not None and searched > self._max_bytes:
                raise ValueError("a line is too long")
            data = self._sock.recv(_READ_BYTES)
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _write(sock: socket.socket, message: Struct) -> None:
    sock.sendall(_encoder.encode(message) + b"\n")


# --- Where the socket is --------------------------------------------------------------------------


def _make_place(folder: Path) -> Path:
    """A path for a new socket; what a killed owner left is removed first. The lock is ours."""
    _remove_place(folder)
    path = folder / SOCKET_NAME
    if len(os.fsencode(path)) <= PATH_MAX_BYTES:
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for parent in filter(None, (runtime, tempfile.gettempdir(), "/tmp")):
        with suppress(OSError):
            elsewhere = Path(tempfile.mkdtemp(prefix="saltline-", dir=parent)) / SOCKET_NAME
            if len(os.fsencode(elsewhere)) <= PATH_MAX_BYTES:
                descriptor = os.open(
                    folder / PLACE_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
                )
                with open(descriptor, "wb") as file:
                    file.write(os.fsencode(elsewhere))
                return elsewhere
            elsewhere.parent.rmdir()
    raise Refused(
        f"The path of {folder} is too long for a socket, and no temporary folder has a shorter one."
        " Nothing was lost. Move the profile, or set TMPDIR to a short path.",
        ExitCode.INTERNAL,
    )


def find_place(folder: Path) -> Path:
    """Where an owner of this profile would listen. Raises OSError."""
    try:
        with open(folder / PLACE_FILE, "rb") as file:
            return Path(os.fsdecode(file.read(_PLACE_MAX_BYTES)))
    except FileNotFoundError:
        return folder / SOCKET_NAME


def _remove_place(folder: Path) -> None:
    with suppress(OSError):
        place = find_place(folder)
        if place.parent != folder and _is_private(place.parent):
            shutil.rmtree(place.parent)
    for name in (SOCKET_NAME, PLACE_FILE):
        with suppress(OSError):
            (folder / name).unlink()


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    mine = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return mine and stat.S_ISDIR(status.st_mode) and folder.name.startswith("saltline-")


# --- The owner's side -----------------------------------------------------------------------------


class ControlServer:
    """Serves this profile's other processes, each in a thread of its own."""

    def __init__(self, profile: Profile, service: Service) -> None:
        self._folder = profile.folder
        self._service = service
        self._lock = threading.Lock()  # guards the callers; tier 2
        self._callers: dict[socket.socket, threading.Thread] = {}
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            place = _make_place(self._folder)
            self._listener.bind(os.fspath(place))
            os.chmod(place, 0o600)
            self._listener.listen(_CALLERS_MAX)
            self._listener.setblocking(False)
        except OSError as error:
            self._listener.close()
            raise Refused(
                f"No socket can be made in {self._folder}: {error.strerror}.", ExitCode.INTERNAL
            ) from None
        except BaseException:
            self._listener.close()
            raise
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(target=self._accept, name="saltline-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send everybody away and remove the socket. Call `Service.leave` first."""
        with self._lock:
            self._closing.set()
            callers = dict(self._callers)
        _remove_place(self._folder)
        os.write(self._wake_writer, b"\0")
        for sock in callers:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RD)  # an answer that is under way still leaves
        deadline = time.monotonic() + _LEAVE_S
        for sock, thread in callers.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            with suppress(OSError):  # it does not read its answer
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            # Closing a socket ends a waiting accept on some systems only; a pipe on all.
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while selector.select() and not self._closing.is_set():
                self._accept_one()

    def _accept_one(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return  # who came is gone again
        except OSError:
            # Out of descriptors, for instance: what is there already may end meanwhile.
            self._closing.wait(_ACCEPT_AGAIN_S)
            return
        sock.setblocking(True)
        with self._lock:
            if self._closing.is_set() or len(self._callers) >= _CALLERS_MAX:
                sock.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(sock,), name="saltline-caller", daemon=True
            )
            self._callers[sock] = thread
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(_FIRST_LINE_S)
            lines = _Lines(sock)
            while (line := lines.next()) is not None:
                sock.settimeout(None)
                self._answer(sock, line)
        except (OSError, ValueError, Closed):
            pass  # it went away, said nothing, or sent what nobody of ours sends
        finally:
            self._service.gone(sock)
            with self._lock:
                self._callers.pop(sock, None)
            sock.close()

    def _answer(self, sock: socket.socket, line: bytes) -> None:
        try:
            asked = _asked_decoder.decode(line)
        except _DECODE_ERRORS:
            asked = None
        if asked is None or asked.v != CONTROL_VERSION:
            sentence = "Another version of saltline has this profile open; close that first."
            _write(sock, _Answer(done=True, refused=sentence, code=ExitCode.USAGE))
            raise ValueError("not a request of this version")
        try:
            for reply in self._service.perform(asked.request, sock):
                _write(sock, _Answer(reply=reply))
        except (OSError, Closed):
            raise  # hung up on: who asked takes the profile over
        except Exception as error:
            refused = as_refused(error)
            _write(sock, _Answer(done=True, refused=refused.sentence, code=refused.code))
        else:
            _write(sock, _Answer(done=True))


# --- The other side -------------------------------------------------------------------------------


class ControlClient:
    """Asks the process that owns a profile."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError when nobody listens."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(_CONNECT_S)
            place = find_place(folder)
            if place.parent != folder and not _is_private(place.parent):
                raise PermissionError("the socket's folder is not ours any more")
            self._sock.connect(os.fspath(place))
            self._sock.settimeout(None)
        except BaseException:
            self._sock.close()
            raise
        self._lines = _Lines(self._sock, max_bytes=None)

    def close(self) -> None:
        """Hang up; what was taken and not printed can be taken by others."""
        self._sock.close()

    def perform(self, request: AnyRequest) -> Iterator[Reply]:
        """Raises Refused, also after some replies, and OwnerGone."""
        try:
            _write(self._sock, _Asked(CONTROL_VERSION, request))
            while (line := self._lines.next()) is not None:
                answer = _answer_decoder.decode(line)
                if answer.reply is not None:
                    yield answer.reply
                elif answer.refused:
                    raise Refused(answer.refused, ExitCode(answer.code))
                elif answer.done:
                    return
        except (OSError, ValueError, *_DECODE_ERRORS):
            raise OwnerGone from None
        raise OwnerGone
