"""The first messages of a connection: hello, challenge, then login or registration."""

from collections.abc import Callable
from dataclasses import replace

from saltline.client.context import Context, Refusal
from saltline.client.model import Refused
from saltline.client.vault.database import AccountRow
from saltline.crypto.bundles import PrekeyKind
from saltline.crypto.keylog import Entry, Op, create_entry
from saltline.crypto.keylog import relay_id as relay_id_of
from saltline.crypto.keys import IdentityKeys
from saltline.crypto.primitives import BadSignature, sha256
from saltline.crypto.signatures import (
    certificate_payload,
    login_payload,
    register_payload,
    verify,
)
from saltline.protocol.errors import ErrorCode
from saltline.protocol.limits import ONE_TIME_IDS_MAX
from saltline.protocol.messages import PROTOCOL_VERSION, RelayMessage, encode_message
from saltline.protocol.to_client import Challenge, Invited
from saltline.protocol.to_relay import CheckInvite, Hello, Login, Register

AGENT = "saltline"
SIGNATURE_BYTES = 64
_NUMBER_MAX = 0xFFFF_FFFF  # an entry's number is a u32
_EXPIRED = (
    "The relay's word for its certificate has expired, or this computer's clock is wrong. Nothing"
    " was sent."
)


class Greeting:
    """Says who we are on a new connection."""

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self._hello = b""
        self._spki = b""
        self.is_waiting = False  # for the challenge
        self.is_asking = False  # to log in or to register
        self.is_registering = False
        self._challenge = b""
        self._is_repeat = False  # the keys were made for an earlier attempt
        self._first_refusal: Refused | None = None
        self.on_refused: Callable[[Refused], None] | None = None

    def begin(self, spki_hash: bytes) -> None:
        """The certificate's key (SHA-256, 32 bytes) is what the link saw."""
        self._spki = spki_hash
        self._hello = encode_message(Hello((PROTOCOL_VERSION,), (), AGENT))
        self.is_waiting, self.is_asking, self.is_registering = True, False, False
        self._first_refusal = None
        self._ctx.transmit_body(self._hello)

    def challenged(self, message: Challenge, body: bytes) -> tuple[str, bool]:
        """Log in or register, if this is our relay and its certificate.

        Else returns why not, and whether that may pass by itself.
        """
        self.is_waiting = False
        account = self._ctx.account
        problem = self._check(message, account)
        if problem:
            return problem, False
        if message.certificate_not_after_ms < self._ctx.now_ms:
            # A clock that is set later makes it good, but nobody is registered behind their back.
            return _EXPIRED, bool(account.registered)
        if account.registered:
            self._log_in(body)
            return "", False
        self.is_registering = True
        self._challenge, self._is_repeat = body, bool(account.identity)
        if not account.log_key:
            account = replace(account, log_key=message.log_key)
            self._ctx.vault.save_account(account)
        if account.invite and not account.identity:
            self._check_invite(account, body)
        else:
            self._register(account, body)
        return "", False

    def try_login(self, refusal: Refusal) -> bool:
        """The name may be taken by ourselves, when an earlier answer was lost: then log in."""
        taken = refusal.code in (ErrorCode.NAME_TAKEN, ErrorCode.BAD_INVITE)
        if not taken or not self._is_repeat or self._first_refusal is not None:
            return False
        self._first_refusal = refusal.as_refused()
        self._log_in(self._challenge)
        return True

    def reason(self, refusal: Refusal) -> Refused:
        """Why the registration was refused, whatever was tried after it."""
        return self._first_refusal or refusal.as_refused()

    def forget(self) -> None:
        """Registration was refused: the keys that were made for it are not ours."""
        account = self._ctx.account
        self._ctx.vault.save_account(replace(account, identity=b"", entry=b"", log_key=b""))
        self._ctx.keys = None
        self.is_registering = self.is_asking = False

    def welcomed(self) -> bool:
        """Logged in; True if that completed a registration."""
        self.is_registering = self.is_asking = False
        account = self._ctx.account
        if account.registered:
            return False
        self._ctx.vault.save_account(replace(account, registered=1, invite=""))
        return True

    def _check(self, message: Challenge, account: AccountRow) -> str:
        if not account.username:
            return "This profile has no account yet. Register first: saltline register"
        if message.version != PROTOCOL_VERSION:
            return "The relay speaks another version of the protocol. Nothing was sent; update."
        if account.log_key and account.log_key != message.log_key:
            return (
                "Another relay answers at this address: its log key is not the one that this"
                " profile belongs to. Nothing was sent. Ask the admin before you go on."
            )
        payload = certificate_payload(self._spki, message.certificate_not_after_ms)
        try:
            verify(message.log_key, payload, message.certificate_signature)
        except BadSignature:
            return (
                "The relay's log key did not sign this certificate: somebody may sit between you"
                " and the relay. Nothing was sent."
            )
        return ""

    # --- login ---------------------------------------------------------------------------------

    def _log_in(self, challenge: bytes) -> None:
        self.is_asking = True
        identity = self._ctx.me.identity
        payload = login_payload(
            identity.relay_id,
            identity.username,
            identity.device,
            self._hello,
            challenge,
            self._spki,
        )
        held = self._ctx.prekeys.held_ids
        self._ctx.transmit(
            Login(
                identity.username,
                identity.device,
                self._ctx.me.sign(payload),
                held(PrekeyKind.ONE_TIME, ONE_TIME_IDS_MAX),
                held(PrekeyKind.ONE_TIME_KEM, ONE_TIME_IDS_MAX),
            )
        )

    # --- registration --------------------------------------------------------------------------

    def _check_invite(self, account: AccountRow, challenge: bytes) -> None:
        """A code is for a new account, or resets an old one's key."""
        self._ctx.request(
            lambda number: CheckInvite(number, account.invite),
            lambda answer: self._invited(account, challenge, answer),
            self._not_invited,
        )

    def _not_invited(self, refusal: Refusal) -> None:
        if not refusal.lost and self.on_refused is not None:
            self.on_refused(refusal.as_refused())

    def _refuse(self, sentence: str) -> None:
        if self.on_refused is not None:
            self.on_refused(Refused(sentence))

    def _invited(self, account: AccountRow, challenge: bytes, answer: RelayMessage) -> None:
        if not isinstance(answer, Invited) or not answer.username:
            self._register(account, challenge)
            return
        if answer.username != account.username:
            self._refuse("This code resets another account. Nothing was registered.")
            return
        if answer.number > _NUMBER_MAX:
            self._refuse("The relay's answer about this code makes no sense. Nothing was sent.")
            return
        keys = self._make_keys(account, answer.device)
        entry = Entry(
            op=Op.RESET,
            username=account.username,
            number=answer.number,
            previous=answer.previous,
            time_ms=self._ctx.now_ms,
            identity=keys.identity,
            identity_signature=keys.identity_signature,
            signer=0,
            signature=bytes(SIGNATURE_BYTES),  # the relay's log key signs a reset
        )
        self._register(self._keep(account, keys, entry), challenge)

    def _register(self, account: AccountRow, challenge: bytes) -> None:
        """The keys and the entry are in the vault before they leave; a retry repeats them."""
        self.is_asking = True
        if not account.identity:
            keys = self._make_keys(account, 1)
            entry = create_entry(
                keys.identity, keys.identity_signature, self._ctx.now_ms, keys.sign
            )
            account = self._keep(account, keys, entry)
        me = self._ctx.me
        payload = register_payload(
            me.identity.relay_id,
            me.identity.username,
            me.identity.device,
            self._hello,
            challenge,
            self._spki,
            sha256(account.entry),
        )
        self._ctx.transmit(
            Register(account.username, account.entry, me.sign(payload), account.invite)
        )

    def _make_keys(self, account: AccountRow, device: int) -> IdentityKeys:
        relay_id = relay_id_of(account.log_key)
        return IdentityKeys.generate(relay_id, account.username, device, self._ctx.random)

    def _keep(self, account: AccountRow, keys: IdentityKeys, entry: Entry) -> AccountRow:
        account = replace(account, identity=keys.to_bytes(), entry=entry.encode())
        self._ctx.vault.save_account(account)
        self._ctx.keys = keys
        return account
