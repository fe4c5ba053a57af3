"""The exact reader and writer."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltline.crypto.encoding import Malformed, Reader, lp, u8, u32, u64


def test_numbers_are_big_endian() -> None:
    assert u8(0xAB) == b"\xab"
    assert u32(0x01020304) == b"\x01\x02\x03\x04"
    assert u64(0x0102030405060708) == b"\x01\x02\x03\x04\x05\x06\x07\x08"
    assert lp(b"abc") == b"\x00\x00\x00\x03abc"


@pytest.mark.parametrize(("write", "bits"), [(u8, 8), (u32, 32), (u64, 64)])
def test_numbers_that_do_not_fit_are_refused(write: Callable[[int], bytes], bits: int) -> None:
    assert write(2**bits - 1) == b"\xff" * (bits // 8)
    for number in (-1, 2**bits):
        with pytest.raises(Malformed):
            write(number)


@given(st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1), st.binary())
def test_what_is_written_is_read(small: int, middle: int, large: int, data: bytes) -> None:
    written = u8(small) + u32(middle) + u64(large) + lp(data) + u64(large) + data
    reader = Reader(written)
    assert reader.u8() == small
    assert reader.u32() == middle
    assert reader.u63() == large
    assert reader.lp(len(data)) == data
    assert reader.u64() == large
    assert reader.take(len(data)) == data
    reader.finish()


def read(data: bytes) -> tuple[bytes, int, bytes]:
    reader = Reader(data)
    reader.expect(b"\x01")
    fields = reader.lp(8), reader.u32(), reader.lp_exactly(2)
    reader.finish()
    return fields


def test_every_prefix_and_every_extension_is_refused() -> None:
    whole = b"\x01" + lp(b"12345678") + u32(7) + lp(b"ab")
    assert read(whole) == (b"12345678", 7, b"ab")
    for size in range(len(whole)):
        with pytest.raises(Malformed, match="too short|wrong length|unknown"):
            read(whole[:size])
    with pytest.raises(Malformed, match="left over"):
        read(whole + b"\x00")


def test_a_length_above_its_bound_is_refused_before_the_bytes_are_looked_at() -> None:
    with pytest.raises(Malformed, match="longer than its bound"):
        Reader(b"\xff\xff\xff\xff").lp(8)
    with pytest.raises(Malformed, match="longer than its bound"):
        read(b"\x01" + lp(b"123456789") + u32(7) + lp(b"ab"))


def test_a_length_that_must_be_exact() -> None:
    for wrong in (b"", b"a", b"abc"):
        with pytest.raises(Malformed, match="wrong length"):
            Reader(lp(wrong)).lp_exactly(2)


def test_unknown_versions_are_refused() -> None:
    with pytest.raises(Malformed, match="unknown version"):
        read(b"\x02" + lp(b"") + u32(7) + lp(b"ab"))


def test_a_time_that_a_database_cannot_hold_is_refused() -> None:
    assert Reader(u64(2**63 - 1)).u63() == 2**63 - 1
    with pytest.raises(Malformed, match=r"2\^63"):
        Reader(u64(2**63)).u63()


def test_the_rest_leaves_nothing() -> None:
    reader = Reader(b"abc")
    assert reader.take(1) == b"a"
    assert reader.rest() == b"bc"
    assert reader.rest() == b""
    reader.finish()
