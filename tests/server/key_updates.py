"""A TLS client that sends KeyUpdate records without end, which OpenSSL's own never does."""

import hmac
import socket
import ssl
import tempfile

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

_KEY_UPDATE = bytes((24, 0, 0, 1, 0)) + b"\x16"  # and its true type, handshake
_HEADER = b"\x17\x03\x03" + (len(_KEY_UPDATE) + 16).to_bytes(2, "big")


def _expand(secret: bytes, label: bytes, size: int, digest: str) -> bytes:
    """HKDF-Expand-Label of RFC 8446, section 7.1, with no context."""
    named = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(named),)) + named + b"\0"
    block = hmac.digest(secret, info + b"\1", digest)
    return block[:size]


def _gone() -> bytes:
    raise ConnectionResetError("in the middle of a handshake")


class Updater:
    """A connection whose handshake is done, and that many records which say nothing.

    Raises OSError, also where the relay ends it in the middle of the handshake.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with tempfile.NamedTemporaryFile("r", encoding="ascii") as secrets:
            context.keylog_filename = secrets.name
            came, leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(came, leaves)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self.sock.sendall(leaves.read())
                    came.write(self.sock.recv(65536) or _gone())
            self.sock.sendall(leaves.read())
            lines = [line.split() for line in secrets]
        (secret,) = [each[2] for each in lines if each[0] == "CLIENT_TRAFFIC_SECRET_0"]
        self._secret = bytes.fromhex(secret)
        cipher = tls.cipher()
        assert cipher is not None
        self._cipher = cipher[0]

    def records(self, count: int, says: bytes = b"") -> bytes:
        """The next ones, each under the keys that the one before announced; before them `says`."""
        digest, hash_bytes = ("sha384", 48) if "SHA384" in self._cipher else ("sha256", 32)
        seal = ChaCha20Poly1305 if "CHACHA" in self._cipher else AESGCM
        key_bytes = 16 if "AES_128" in self._cipher else 32
        made = []
        for first in (bool(says), *[False] * (count - 1)):
            key = seal(_expand(self._secret, b"key", key_bytes, digest))
            nonce = _expand(self._secret, b"iv", 12, digest)
            if first:
                header = b"\x17\x03\x03" + (len(says) + 17).to_bytes(2, "big")
                made.append(header + key.encrypt(nonce, says + b"\x17", header))
                nonce = nonce[:-1] + bytes((nonce[-1] ^ 1,))
            made.append(_HEADER + key.encrypt(nonce, _KEY_UPDATE, _HEADER))
            self._secret = _expand(self._secret, b"traffic upd", hash_bytes, digest)
        return b"".join(made)
