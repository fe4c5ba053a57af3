"""The relay's TLS certificate: a self-made one, or an admin's; and its key's pin.

The pin is SHA-256 of the DER SubjectPublicKeyInfo (RFC 7469, section 2.4), written `sha256:HEX`.
"""

import hashlib
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    PrivateKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from saltline.server.data_folder import open_private, write_private
from saltline.server.errors import UsageError, why

CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "certificate.key"
# Clients trust the key, not the date: long enough that nobody has to think of it.
SELF_MADE_LIFE: Final = timedelta(days=3650)
RENEW_BEFORE_END: Final = timedelta(days=30)
# A clock that runs behind ours must not find the certificate too young.
_CLOCK_SLACK: Final = timedelta(days=1)
_PEM_MAX_BYTES: Final = 256 * 1024
_NAMES_SHOWN: Final = 5
# A stranger chooses the group: ffdhe8192 takes 60 times what X25519 does, and nothing of who sends
# the same ClientHello again. Python 3.11 can name one group only. OpenSSL 3.5 leaves out what is
# above ffdhe3072, and prefers a hybrid with ML-KEM, which stays.
_HAS_COSTLY_GROUPS: Final = (3, 0) <= ssl.OPENSSL_VERSION_INFO < (3, 5)
_READS_MAX: Final = 3
_DNS_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A loaded certificate with its key. `spki_hash` has 32 bytes."""

    spki_hash: bytes
    not_after_ms: int
    context: ssl.SSLContext = field(repr=False)
    warning: str = ""  # a sentence for the admin, or ""
    names: tuple[str, ...] = ()  # host names and IP addresses that it is for

    @property
    def pin(self) -> str:
        """`sha256:` and 64 lower-case hex digits."""
        return f"sha256:{self.spki_hash.hex()}"


def spki_hash(certificate: bytes) -> bytes:
    """SHA-256 of a DER certificate's SubjectPublicKeyInfo, 32 bytes. Raises ValueError."""
    return hashlib.sha256(_spki(x509.load_der_x509_certificate(certificate).public_key())).digest()


def load(chain: Path, key: Path, now: datetime) -> Certificate:
    """An admin's certificate: PEM, the relay's own first, and its unencrypted key.

    Raises UsageError with the file and what is wrong with it.
    """
    for _ in range(_READS_MAX):
        before = _read_pem(chain, "certificate"), _read_pem(key, "key")
        certificate = _load(chain, key, now)
        # OpenSSL reads the files once more: what it got is what was checked.
        if before == (_read_pem(chain, "certificate"), _read_pem(key, "key")):
            return certificate
    raise UsageError(f"{chain} and {key} are being changed. Try again when that is done.")


def _load(chain: Path, key: Path, now: datetime) -> Certificate:
    certificate = _read_certificate(chain)
    private_key = _read_key(key)
    if _spki(certificate.public_key()) != _spki(private_key.public_key()):
        raise UsageError(
            f"The key {key} does not belong to the first certificate in {chain}."
            " The relay's own certificate comes first, those of its issuers after it."
        )
    if certificate.not_valid_after_utc <= now:
        raise UsageError(
            f"The certificate {chain} ended on {certificate.not_valid_after_utc:%Y-%m-%d}:"
            " clients refuse it. Renew it."
        )
    if certificate.not_valid_before_utc > now:
        raise UsageError(
            f"The certificate {chain} begins on {certificate.not_valid_before_utc:%Y-%m-%d}:"
            " clients refuse it until then. Is this computer's clock right?"
        )
    open_to_others = stat.S_IMODE(key.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    return Certificate(
        spki_hash=hashlib.sha256(_spki(certificate.public_key())).digest(),
        not_after_ms=int(certificate.not_valid_after_utc.timestamp()) * 1000,
        context=_server_context(chain, key),
        warning=(
            f"The key {key} can be opened by other users of this computer: chmod 600 {key}"
            if open_to_others & ~stat.S_IRGRP  # a group of those who may read it is common
            else ""
        ),
        names=_names_in(certificate),
    )


def name_warning(certificate: Certificate, host: str) -> str:
    """What is wrong with an admin's certificate for who connects to `host`, or "".

    "" is a host that is not known.
    """
    if not certificate.names:
        return "The certificate names no host: users need its pin, and an authority is of no use."
    if not host or any(_covers(name, host) for name in certificate.names):
        return ""
    return (
        f"The certificate is for {', '.join(certificate.names[:_NAMES_SHOWN])}, not for {host}:"
        " users give --relay the name that is in it, or its pin."
    )


def _covers(name: str, host: str) -> bool:
    """Whether a name in a certificate, perhaps with a `*` as its first label, is for `host`."""
    name, host = name.lower(), host.partition("%")[0].lower()
    if name.startswith("*."):
        return name[2:] == host.partition(".")[2]
    return name == host


def _names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (
        ValueError,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,  # an X.400 address is one
    ):
        return ()
    addresses = held.get_values_for_type(x509.IPAddress)
    return (*held.get_values_for_type(x509.DNSName), *map(str, addresses))


def load_or_make(folder: Path, names: Iterable[str], now: datetime) -> Certificate:
    """The self-made certificate of a data folder, for `names` (host names and IP addresses).

    Made at first start; made anew, with the same key and so the same pin, when it is about to end
    or a name is missing. Raises UsageError.
    """
    chain, key_path = folder / CERTIFICATE_FILE, folder / KEY_FILE
    subjects = _subjects(names)
    try:
        if os.path.lexists(key_path):
            os.close(open_private(key_path, os.O_RDONLY))  # no link, and from now on ours alone
            key = _read_own_key(key_path)
            if chain.exists() and _still_good(_read_certificate(chain), key, subjects, now):
                return load(chain, key_path, now)
        elif chain.exists():
            raise UsageError(
                f"{key_path} is missing, and {chain} belongs to it. Restore it from a backup; or"
                f" remove {chain}, and a new key is made, whose pin users have to confirm."
            )
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(key_path, _encode_key(key))
        write_private(chain, _self_sign(key, subjects, now).public_bytes(Encoding.PEM))
    except OSError as error:
        raise UsageError(f"The certificate cannot be kept in {folder}: {why(error)}.") from None
    return load(chain, key_path, now)


_Subject = x509.DNSName | x509.IPAddress


def _subjects(names: Iterable[str]) -> list[_Subject]:
    """What the certificate is for. A name that no certificate can hold is left out."""
    subjects: dict[_Subject, None] = {}
    for name in names:
        try:
            subjects[x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))] = None
        except ValueError:
            if _DNS_NAME.fullmatch(name):
                subjects[x509.DNSName(name.lower())] = None
    return list(subjects)


def _self_sign(
    key: ec.EllipticCurvePrivateKey, subjects: list[_Subject], now: datetime
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Saltline relay")])
    key_usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + SELF_MADE_LIFE)
        .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _still_good(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    subjects: list[_Subject],
    now: datetime,
) -> bool:
    """Whether a self-made certificate can go on being used."""
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return (
        _spki(certificate.public_key()) == _spki(key.public_key())
        and certificate.not_valid_before_utc <= now
        and certificate.not_valid_after_utc > now + RENEW_BEFORE_END
        and set(subjects) <= set(held)
    )


def _read_pem(path: Path, what: str) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"The {what} {path} is not a file.")
            pem = file.read(_PEM_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The {what} {path} cannot be read: {why(error)}.") from None
    if len(pem) > _PEM_MAX_BYTES:
        raise UsageError(f"The {what} {path} is too large to be one.")
    return pem


def _open_at_once(path: str, flags: int) -> int:
    """A pipe would wait for its other end, and no signal would stop the relay meanwhile."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a chain."""
    try:
        certificate = x509.load_pem_x509_certificates(_read_pem(path, "certificate"))[0]
        certificate.public_key()
    except ValueError:
        raise UsageError(f"The file {path} holds no certificate in PEM form.") from None
    except UnsupportedAlgorithm:
        raise UsageError(
            f"The certificate {path} is for a kind of key that the relay does not know. An EC key"
            " does."
        ) from None
    return certificate


def _read_key(path: Path) -> PrivateKeyTypes:
    pem = _read_pem(path, "key")
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:  # how the library says that a passphrase is missing
        raise UsageError(
            f"The key {path} is encrypted. The relay starts without a person: give it an"
            " unencrypted key in a file that only it can read."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"The file {path} holds no private key in PEM form that the relay knows."
        ) from None


def _read_own_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _read_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(
            f"The key {path} is not one that the relay made. An own certificate is given with"
            " --cert and --key."
        )
    return key


def _encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _server_context(chain: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3 alone, without session tickets: every connection logs in anyway, and two tickets
    cost a quarter of a login."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    if _HAS_COSTLY_GROUPS:
        with suppress(ssl.SSLError, ValueError):  # where OpenSSL lacks it, as under FIPS
            context.set_ecdh_curve("X25519")
    try:
        # An encrypted key was refused above; a password callback keeps OpenSSL from asking.
        context.load_cert_chain(chain, key, password="")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise UsageError(
            f"The certificate {chain} with the key {key} is not one that TLS 1.3 can use."
            " Use an ECDSA, Ed25519 or RSA key."
        ) from None
    return context
