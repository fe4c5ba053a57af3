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
from typing import TYPE_CHECKING, Final

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
from saltline.protocol.text import sanitise

if TYPE_CHECKING:  # slow to import, and only a connection needs it
    from cryptography import x509

# What changes the proof of a relay where there is an account already, and where there is none.
PROVE_ANEW: Final = "saltline relay --pin sha256:… or --ca FILE"
PROVE_FIRST: Final = "saltline register … --pin sha256:… or --ca FILE"
_NAMES_MAX: Final = 5
_UNREADABLE: Final = "its certificate cannot be read"
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


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """What a refused certificate says of itself, for the sentence about it."""

    pin: str = "unknown"
    names: tuple[str, ...] = ()  # host names and IP addresses, safe to print


def shown_by(secure: ssl.SSLSocket) -> ShownCertificate:
    """What the other end shows. Raises DialFailed."""
    certificate = _certificate_of(secure)
    names = [sanitise(name, newlines=False) for name in _names_in(certificate)[:_NAMES_MAX]]
    return ShownCertificate(format_pin(_spki_hash(certificate)), tuple(names))


def spki_hash_of(secure: ssl.SSLSocket) -> bytes:
    """SHA-256 of the peer certificate's SubjectPublicKeyInfo, 32 bytes. Raises DialFailed."""
    return _spki_hash(_certificate_of(secure))


def _certificate_of(secure: ssl.SSLSocket) -> "x509.Certificate":
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
    except ValueError:
        raise DialFailed(_UNREADABLE) from None


def _spki_hash(certificate: "x509.Certificate") -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = certificate.public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise DialFailed(_UNREADABLE) from None
    return hashlib.sha256(info).digest()


def _names_in(certificate: "x509.Certificate") -> list[str]:
    from cryptography import x509

    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return []
    named = held.get_values_for_type(x509.DNSName)
    return [*named, *map(str, held.get_values_for_type(x509.IPAddress))]


def check_pin(target: Target, spki_hash: bytes) -> None:
    """Raise CertificateRefused unless the pin, where there is one, is this key's."""
    if target.pin and not hmac.compare_digest(target.pin, spki_hash):
        raise CertificateRefused(
            f"The certificate of {target.address} does not match: expected"
            f" {format_pin(target.pin)}, got {format_pin(spki_hash)}. Nothing was sent. This may be"
            " an attack. Ask the relay's admin; only if its key is a new one:"
            f" {PROVE_ANEW}"
        )


def not_vouched(target: Target, shown: ShownCertificate, reason: NotVouched) -> CertificateRefused:
    """The sentence for a certificate that no authority vouches for under this name."""
    host = target.address.host
    if reason.wrong_name:
        names = ", ".join(shown.names) or "another name"
        return CertificateRefused(
            f"The certificate of {target.address} ({shown.pin}) is for {names}, not for '{host}'."
            " Nothing was sent. Use the right name, or ask the relay's admin for its pin:"
            f" {PROVE_ANEW}"
        )
    expected = target.ca_file or "the system's authorities"
    return CertificateRefused(
        f"The certificate of {target.address} ({shown.pin}) is not vouched for by {expected}:"
        f" {reason}. Nothing was sent. Ask the relay's admin for its pin or CA: {PROVE_ANEW}"
    )
