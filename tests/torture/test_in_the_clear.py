"""The search itself: it would find what a slip had written down, in every form."""

import base64
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.torture.in_the_clear import Searched

TEXT = b"canary0123456789abcdef"
KEY = bytes(range(200, 232))


@pytest.mark.parametrize("secret", [TEXT, KEY])
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_it_finds_a_secret_in_each_form(tmp_path: Path, secret: bytes, before: str) -> None:
    plain = before.encode() + secret + b" and more"
    leaks = [plain, plain.hex().encode(), plain.hex().upper().encode()]
    leaks += [base64.b64encode(plain), base64.urlsafe_b64encode(plain)]
    leaks += [repr(plain).encode(), repr(list(plain)).encode(), " ".join(map(str, plain)).encode()]
    if secret is TEXT:
        leaks += [plain.decode().encode("utf-16-le"), plain.decode().encode("utf-16-be")]
    for number, leak in enumerate(leaks):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "file").write_bytes(b"\x00" * 1000 + leak + b"\x00" * 1000)
        with pytest.raises(AssertionError, match="in the clear"):
            Searched([b"another thing that is secret", secret]).look_into(folder)


@pytest.mark.parametrize("before", range(8))
@pytest.mark.parametrize("after", range(8))
def test_it_finds_a_secret_wherever_it_lies(before: int, after: int) -> None:
    searched = Searched([KEY])
    searched.want([TEXT])
    for secret in (TEXT, KEY, TEXT[:-1], KEY[1:]):
        lies_here = secret in (TEXT, KEY)
        with pytest.raises(AssertionError) if lies_here else nullcontext():
            searched.look("a log", bytes(before) + secret + bytes(after))


def test_it_says_how_much_it_looked_through(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(1000))
    (tmp_path / "vault.key").write_bytes(KEY)
    searched = Searched([KEY])
    searched.look_into(tmp_path, "vault.key")
    assert (searched.places, searched.size_bytes) == (1, 1000)
