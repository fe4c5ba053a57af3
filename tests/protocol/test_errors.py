"""Errors: every code says whose fault it is, and none repeats what was refused."""

import pytest

from saltline.protocol.errors import FAULT, ErrorCode, Fault, ProtocolError
from saltline.protocol.frames import FrameDecoder
from saltline.protocol.messages import decode_client_message, decode_relay_message, encode_message
from saltline.protocol.to_client import Error


def test_every_code_has_a_fault_and_nothing_else_has() -> None:
    assert set(FAULT) == set(ErrorCode)
    assert set(FAULT.values()) == set(Fault)


@pytest.mark.parametrize("code", ErrorCode)
def test_a_code_travels(code: ErrorCode) -> None:
    error = Error(0, code, "Because.", 0)

    received = decode_relay_message(encode_message(error))

    assert isinstance(received, Error)
    assert ErrorCode(received.code) is code


def test_a_protocol_error_carries_what_the_other_side_is_told() -> None:
    error = ProtocolError(ErrorCode.RATE_LIMITED, "Too many requests; wait.", 1500)

    assert (error.code, error.detail, error.retry_after_ms) == (
        ErrorCode.RATE_LIMITED,
        "Too many requests; wait.",
        1500,
    )
    assert str(error) == "Too many requests; wait."
    assert error.fault is Fault.NOBODY
    assert ProtocolError(ErrorCode.STORAGE_FAILED, "The disk is full.").fault is Fault.RELAY
    assert ProtocolError(ErrorCode.BAD_LOGIN, "No.").retry_after_ms == 0


def test_a_refusal_is_our_own_words() -> None:
    told: list[str] = []
    for refuse in (decode_client_message, decode_relay_message, FrameDecoder().feed):
        with pytest.raises(ProtocolError) as refusal:
            refuse(b"SECRET\x1b[31m" * 4)
        told.append(refusal.value.detail)
        assert refusal.value.__cause__ is None
        assert refusal.value.__suppress_context__ or refusal.value.__context__ is None

    assert not [detail for detail in told if "SECRET" in detail or not detail.isprintable()]
