"""Certificates: the self-made one, an admin's, and what is wrong with a bad one."""

import hashlib
import ipaddress
import os
import ssl
import stat
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtensionOID

from saltline.server import certificates
from saltline.server.certificates import (
    CERTIFICATE_FILE,
    KEY_FILE,
    load,
    load_or_make,
    name_warning,
)
from saltline.server.errors import UsageError

NOW = datetime(2026, 5, 12, 12, tzinfo=UTC)
NAMES = ["192.0.2.7", "relay.example", "localhost"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def subject_names(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def write_pair(
    folder: Path,
    key: CertificateIssuerPrivateKeyTypes,
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=60),
    encryption: KeySerializationEncryption | None = None,
    names: Sequence[str] = (),
    odd_names: bytes = b"",
) -> tuple[Path, Path]:
    """What an admin gets from elsewhere."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if names:
        held = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(held, critical=False)
    if odd_names:
        odd = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, odd_names)
        builder = builder.add_extension(odd, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(key, algorithm)
    chain, key_path = folder / "fullchain.pem", folder / "privkey.pem"
    chain.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    )
    key_path.chmod(0o600)
    return chain, key_path


def test_the_self_made_certificate(tmp_path: Path) -> None:
    made = load_or_make(tmp_path, NAMES, NOW)
    certificate = read(tmp_path / CERTIFICATE_FILE)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    assert subject_names(certificate) == set(NAMES)
    assert mode(tmp_path / KEY_FILE) == 0o600
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert made.pin == "sha256:" + hashlib.sha256(spki).hexdigest()
    assert made.spki_hash == hashlib.sha256(spki).digest()
    assert made.not_after_ms == certificate.not_valid_after_utc.timestamp() * 1000
    assert made.context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert made.context.num_tickets == 0
    assert sorted(os.listdir(tmp_path)) == [KEY_FILE, CERTIFICATE_FILE]


@pytest.mark.parametrize(
    ("names", "host", "warning"),
    [
        ((), "", "names no host: users need its pin"),
        (("relay.example",), "", ""),
        (("relay.example",), "Relay.Example", ""),
        (("*.example",), "relay.example", ""),
        (("*.example",), "a.relay.example", "is for *.example, not for a.relay.example"),
        (("a.example", "b.example"), "192.0.2.7", "for a.example, b.example, not for 192.0.2.7"),
    ],
)
def test_a_certificate_for_another_name_is_warned_about(
    tmp_path: Path, names: tuple[str, ...], host: str, warning: str
) -> None:
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), names=names)

    found = name_warning(load(chain, key, NOW), host)

    assert warning in found and bool(warning) == bool(found)


@pytest.mark.parametrize("odd_names", ["3002a300", "3000", "30058203610062"])
def test_a_certificate_with_odd_names_is_taken(tmp_path: Path, odd_names: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pair = write_pair(tmp_path, key, odd_names=bytes.fromhex(odd_names))
    assert load(*pair, NOW).names in ((), ("a\0b",))


def test_openssl_finds_the_same_pin(tmp_path: Path) -> None:
    made = load_or_make(tmp_path, NAMES, NOW)
    public = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / CERTIFICATE_FILE, "-noout", "-pubkey"],
        capture_output=True,
        check=True,
    ).stdout
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"],
        input=public,
        capture_output=True,
        check=True,
    ).stdout
    assert made.pin == "sha256:" + hashlib.sha256(der).hexdigest()


def test_a_restart_keeps_certificate_and_pin(tmp_path: Path) -> None:
    first = load_or_make(tmp_path, NAMES, NOW)
    pem = (tmp_path / CERTIFICATE_FILE).read_bytes()
    again = load_or_make(tmp_path, reversed(NAMES), NOW + timedelta(days=1))
    assert again.pin == first.pin
    assert (tmp_path / CERTIFICATE_FILE).read_bytes() == pem


def test_one_about_to_end_is_made_anew_with_the_same_pin(tmp_path: Path) -> None:
    first = load_or_make(tmp_path, NAMES, NOW)
    later = NOW + timedelta(days=3650 - 29)
    again = load_or_make(tmp_path, NAMES, later)
    assert again.pin == first.pin
    assert read(tmp_path / CERTIFICATE_FILE).not_valid_after_utc > later + timedelta(days=3000)


def test_a_new_name_is_added_with_the_same_pin(tmp_path: Path) -> None:
    first = load_or_make(tmp_path, NAMES, NOW)
    again = load_or_make(tmp_path, [*NAMES, "2001:db8::7"], NOW)
    assert again.pin == first.pin
    assert "2001:db8::7" in subject_names(read(tmp_path / CERTIFICATE_FILE))


def test_names_that_no_certificate_can_hold_are_left_out(tmp_path: Path) -> None:
    load_or_make(tmp_path, ["büro", "a b", "", "x" * 300, "fe80::1%eth0", "Relay"], NOW)
    assert subject_names(read(tmp_path / CERTIFICATE_FILE)) == {
        str(ipaddress.ip_address("fe80::1")),
        "relay",
    }


def test_a_key_open_to_others_is_closed(tmp_path: Path) -> None:
    load_or_make(tmp_path, NAMES, NOW)
    (tmp_path / KEY_FILE).chmod(0o644)
    load_or_make(tmp_path, NAMES, NOW)
    assert mode(tmp_path / KEY_FILE) == 0o600


def test_a_lost_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    load_or_make(tmp_path, NAMES, NOW)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(UsageError, match=r"certificate\.key is missing.*Restore it"):
        load_or_make(tmp_path, NAMES, NOW)
    assert not (tmp_path / KEY_FILE).exists()


def test_a_lost_certificate_is_made_again_for_its_key(tmp_path: Path) -> None:
    first = load_or_make(tmp_path, NAMES, NOW)
    (tmp_path / CERTIFICATE_FILE).unlink()
    assert load_or_make(tmp_path, NAMES, NOW).pin == first.pin


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(UsageError, match="cannot be kept in .*: No such file or directory"):
        load_or_make(gone, NAMES, NOW)


@pytest.mark.parametrize("kind", ["ec", "ed25519", "rsa"])
def test_an_admins_certificate_of_each_kind(tmp_path: Path, kind: str) -> None:
    key: CertificateIssuerPrivateKeyTypes
    if kind == "ec":
        key = ec.generate_private_key(ec.SECP384R1())
    elif kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    loaded = load(*write_pair(tmp_path, key), NOW)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert loaded.spki_hash == hashlib.sha256(spki).digest()
    assert loaded.warning == ""


def test_a_key_that_others_may_read_is_warned_about(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    key.chmod(0o644)
    assert load(chain, key, NOW).warning.endswith(f"chmod 600 {key}")
    key.chmod(0o640)
    assert load(chain, key, NOW).warning == ""


@pytest.mark.parametrize("changes", [1, 9], ids=["once", "for ever"])
def test_files_that_are_renewed_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    pair = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    given = certificates._server_context
    keys: list[ec.EllipticCurvePrivateKey] = []

    def renewed(chain: Path, key: Path) -> ssl.SSLContext:
        """After the checks, and before OpenSSL reads them."""
        if len(keys) < changes:
            keys.append(ec.generate_private_key(ec.SECP256R1()))
            write_pair(tmp_path, keys[-1])
        return given(chain, key)

    monkeypatch.setattr(certificates, "_server_context", renewed)
    if changes > 1:
        with pytest.raises(UsageError, match="are being changed. Try again"):
            load(*pair, NOW)
        return
    loaded = load(*pair, NOW)
    spki = keys[-1].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert loaded.spki_hash == hashlib.sha256(spki).digest()


def test_what_is_wrong_with_files_is_said(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    missing, garbage = tmp_path / "missing.pem", tmp_path / "garbage.pem"
    garbage.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    huge = tmp_path / "huge.pem"
    huge.write_bytes(b"#" * 300_000)

    def refused(chain: Path, key: Path) -> str:
        with pytest.raises(UsageError) as refusal:
            load(chain, key, NOW)
        return str(refusal.value)

    assert refused(missing, key) == (
        f"The certificate {missing} cannot be read: No such file or directory."
    )
    assert (
        refused(chain, missing) == f"The key {missing} cannot be read: No such file or directory."
    )
    assert refused(tmp_path, key).endswith("Is a directory.")
    assert refused(garbage, key).startswith(f"The file {garbage} holds no certificate")
    assert refused(key, key).startswith(f"The file {key} holds no certificate")
    assert refused(chain, chain).startswith(f"The file {chain} holds no private key")
    assert refused(huge, key) == f"The certificate {huge} is too large to be one."


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    chain, _ = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    other = tmp_path / "other"
    other.mkdir()
    _, key = write_pair(other, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(UsageError, match="does not belong to the first certificate"):
        load(chain, key, NOW)


def test_a_certificate_for_an_unknown_kind_of_key_is_refused(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    known, unknown = (bytes.fromhex(f"06072a8648ce3d02{end}") for end in ("01", "7f"))
    der = x509.load_pem_x509_certificate(chain.read_bytes()).public_bytes(Encoding.DER)
    chain.write_text(ssl.DER_cert_to_PEM_cert(der.replace(known, unknown)))
    with pytest.raises(UsageError, match="a kind of key that the relay does not know"):
        load(chain, key, NOW)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    pair = write_pair(
        tmp_path,
        ec.generate_private_key(ec.SECP256R1()),
        encryption=BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(UsageError, match="is encrypted"):
        load(*pair, NOW)


def test_dates_are_checked(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    day = timedelta(days=1)
    with pytest.raises(UsageError, match=r"ended on 2026-05-11: .* Renew it"):
        load(*write_pair(tmp_path, key, begins=NOW - 9 * day, ends=NOW - day), NOW)
    with pytest.raises(UsageError, match=r"begins on 2026-05-13: .* clock"):
        load(*write_pair(tmp_path, key, begins=NOW + day), NOW)


@pytest.mark.parametrize("name", ["fullchain.pem", "privkey.pem"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} is not a file"):
        load(chain, key, NOW)


@pytest.mark.parametrize(
    ("group", "is_served"), [("X25519", True), ("ffdhe4096", False), ("ffdhe8192", False)]
)
def test_no_stranger_chooses_a_costly_group(tmp_path: Path, group: str, is_served: bool) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ecdh_curve(group)
    hello, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    context = load_or_make(tmp_path, NAMES, NOW).context
    with pytest.raises(ssl.SSLWantReadError if is_served else ssl.SSLError) as refused:
        context.wrap_bio(hello, answer, server_side=True).do_handshake()
    assert is_served or "NO_SUITABLE_KEY_SHARE" in str(refused.value).upper().replace(" ", "_")
