"""The relay's certificate: fetched, named and judged (docs/protocol.md §6).

The pin is SHA-256 of the DER SubjectPublicKeyInfo (RFC 7469, section 2.4), written `sha256:HEX`.
"""

import hashlib
import hmac
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from saltline.client.dialing import (
    DialFailed,
    NotVouched,
    SocketAddress,
    dial,
    resolve,
    trusting_context,
    wait_plainly,
)
from saltline.client.link_events import Target
from saltline.client.model import ExitCode, Refused
from saltline.protocol.names import BadName, RelayAddress, parse_relay_address

SPKI_HASH_BYTES: Final = 32
_PIN: Final = re.compile(r"sha256:([0-9a-f]{64})")


def parse_pin(text: str) -> bytes:
    """Read `sha256:HEX`, 64 lower-case digits, into 32 bytes. Raises Refused."""
    found = _PIN.fullmatch(text)
    if found is None:
        raise Refused("A pin is sha256: and 64 hexadecimal digits in lower case.")
    return bytes.fromhex(found[1])


def read_target(
    address: str, pin: str | None, ca_file: str | None, before: Target | None = None
) -> Target:
    """Where a person says the relay is, and what they trust; neither given: as `before`.

    An empty `ca_file` means the system's authorities. Raises Refused.
    """
    if pin is not None and ca_file is not None:
        raise Refused("Either a pin or a CA proves the relay's certificate, not both.")
    try:
        where = parse_relay_address(address)
    except BadName as error:
        raise Refused(str(error)) from None
    if pin is not None:
        return Target(where, parse_pin(pin))
    if ca_file is not None:
        path = os.path.abspath(ca_file) if ca_file else ""
        try:
            trusting_context(pinned=False, ca_file=path)
        except NotVouched as error:
            raise Refused(f"Nothing was changed: {error}.") from None
        return Target(where, ca_file=path)
    return Target(where) if before is None else replace(before, address=where)


def format_pin(spki_hash: bytes) -> str:
    """How a person reads and types a pin."""
    return f"sha256:{spki_hash.hex()}"


class CertificateRefused(Refused):
    """The relay's certificate is not the expected one."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, ExitCode.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class RelayCertificate:
    """What a relay shows before anybody logs in."""

    spki_hash: bytes
    vouched: bool  # by the given CA file, or the system's authorities, for this host name
    reason: str  # why not

    @property
    def pin(self) -> str:
        """`sha256:HEX`."""
        return format_pin(self.spki_hash)


def inspect_relay(address: RelayAddress, ca_file: str = "") -> RelayCertificate:
    """Fetch a relay's certificate; nothing of ours is sent. Raises Refused (UNREACHABLE)."""
    try:
        found = resolve(address)
        try:
            with _dial(address, found, pinned=False, ca_file=ca_file) as secure:
                return RelayCertificate(spki_hash_of(secure), True, "")
        except NotVouched as error:
            with _dial(address, found, pinned=True, ca_file="") as secure:
                return RelayCertificate(spki_hash_of(secure), False, str(error))
    except DialFailed as error:
        raise Refused(
            f"The relay {address} cannot be reached: {error}. Nothing was sent.",
            ExitCode.UNREACHABLE,
        ) from None


def _dial(
    address: RelayAddress, found: Sequence[SocketAddress], *, pinned: bool, ca_file: str
) -> ssl.SSLSocket:
    def make_context() -> ssl.SSLContext:
        return trusting_context(pinned=pinned, ca_file=ca_file)

    return dial(address, found, make_context, wait_plainly)


def spki_hash_of(secure: ssl.SSLSocket) -> bytes:
    """SHA-256 of the peer certificate's SubjectPublicKeyInfo, 32 bytes. Raises DialFailed."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    certificate = secure.getpeercert(binary_form=True)
    try:
        if certificate is None:
            raise ValueError
        key = x509.load_der_x509_certificate(certificate).public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise DialFailed("its certificate cannot be read") from None
    return hashlib.sha256(info).digest()


def check_pin(target: Target, spki_hash: bytes) -> None:
    """Raise CertificateRefused unless the pin, where there is one, is this key's."""
    if target.pin and not hmac.compare_digest(target.pin, spki_hash):
        raise CertificateRefused(
            f"The certificate of {target.address} does not match: expected"
            f" {format_pin(target.pin)}, got {format_pin(spki_hash)}. Nothing was sent. Ask the"
            " relay's admin: a new key is taken with saltline relay --pin, anything else may be"
            " an attack."
        )


def not_vouched(target: Target, shown: str, reason: str) -> CertificateRefused:
    """The sentence for a certificate, `shown`, that no authority vouches for."""
    expected = target.ca_file or "the system's authorities"
    return CertificateRefused(
        f"The certificate of {target.address} ({shown}) is not vouched for by {expected}:"
        f" {reason}. Nothing was sent. Ask the relay's admin for its pin or CA:"
        " saltline relay --pin, or --ca."
    )
