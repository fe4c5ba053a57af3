"""What people, relays and admins write: names, addresses, pins, codes, texts, configurations."""

import tempfile
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec

from saltline.client.certificates import format_pin, parse_pin
from saltline.client.model import Refused
from saltline.client.requests import AnyRequest
from saltline.protocol.names import (
    BadName,
    check_room,
    check_user,
    is_reserved,
    parse_conversation,
    parse_relay_address,
    skeleton,
)
from saltline.protocol.text import sanitise
from saltline.server.codes import code_hash
from saltline.server.config import CONFIG_MAX_BYTES, THREADS_MAX, Flags, load_config, parse_listen
from saltline.server.errors import UsageError

_NAME_MAX_CHARS = 33
_SENTENCE_MAX_CHARS = 2000
_JOINERS = "\u200c\u200d"


def _text(data: bytes) -> str:
    """As it comes from a command line: bytes that are not UTF-8 are lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def names(data: bytes) -> None:
    """Everything that is typed, or sent, as a name of something."""
    text = _text(data)
    for check in (check_user, check_room):
        with suppress(BadName):
            assert check(text) == text and text.isascii() and text.isprintable()
            assert 2 <= len(text) <= _NAME_MAX_CHARS
            assert len(skeleton(text)) <= 2 * len(text) and is_reserved(text) in (True, False)
    with suppress(BadName):
        conversation = parse_conversation(text)
        assert parse_conversation(conversation.name) == conversation
    for parse in (parse_relay_address, parse_listen):
        try:
            address = parse(text)
        except BadName as error:
            assert len(str(error)) < _SENTENCE_MAX_CHARS
            assert str(error).isprintable()
        else:
            assert address.host.isascii() and address.host.isprintable()
            assert 0 <= address.port < 65536
            assert parse(str(address)) == address
    with suppress(Refused):
        assert format_pin(parse_pin(text)) == text
    assert len(code_hash(text)) == 32


def texts(data: bytes) -> None:
    """A remote string. The first byte says whether newlines may stay."""
    newlines = bool(data[:1] < b"\x80")
    for text in (data[1:].decode("utf-8", "replace"), _text(data[1:])):
        shown = sanitise(text, newlines=newlines)
        assert len(shown) <= 10 * len(text)
        shown.encode("utf-8")
        for char in shown:
            kind = unicodedata.category(char)
            assert kind not in ("Cc", "Cs", "Co", "Zl", "Zp") or (char == "\n" and newlines)
            assert kind != "Cf" or char in _JOINERS, f"U+{ord(char):04X} hides"
        assert sanitise(shown, newlines=newlines) == shown


@cache
def _configuration() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="saltline-fuzz-")
    _kept.append(folder)
    return Path(folder.name) / "relay.toml"


_kept: list[tempfile.TemporaryDirectory[str]] = []


def configurations(data: bytes) -> None:
    """An admin's file."""
    file = _configuration()
    file.write_bytes(data)
    try:
        config = load_config(file, Flags())
    except UsageError as error:
        assert str(error) and len(str(error)) < _SENTENCE_MAX_CHARS + len(data) * 10
        assert str(error).isprintable(), "what stands in a file reaches the screen as it is"
        return
    assert len(data) <= CONFIG_MAX_BYTES
    assert 1 <= config.workers <= THREADS_MAX and 0 <= config.listen.port < 65536
    assert config.data.is_absolute()
    assert (config.certificate is None) == (config.key is None)


_requests: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_LIMITS: tuple[Callable[[AnyRequest], bool], ...] = (
    lambda request: len(getattr(request, "text", "")) <= 65_537,
    lambda request: 0 <= getattr(request, "timeout_s", 0) <= 10_000_000,
    lambda request: 0 <= (getattr(request, "row", 0) or 0) <= 2**62,
)


def requests(data: bytes) -> None:
    """What one process of a profile asks of another."""
    try:
        request = _requests.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return
    assert all(holds(request) for holds in _LIMITS)
    again = msgspec.json.encode(request)
    assert _requests.decode(again) == request
