"""Public keys: prekeys in, bundles and key log entries out (docs/protocol.md §2, §7)."""

from typing import Final

from saltline.crypto.bundles import BadBundle, Prekey
from saltline.crypto.signatures import Identity, Malformed
from saltline.protocol import to_client, to_relay
from saltline.protocol.errors import ErrorCode, ProtocolError
from saltline.protocol.limits import PAGE_MAX_BYTES, PAGE_MAX_ENTRIES
from saltline.server.limits import DailyQuota
from saltline.server.peers import Connection
from saltline.server.store import interface as told
from saltline.server.store import operations as ask
from saltline.server.switchboard import Switchboard

# What a bundle takes, which is what counts of a claim that waits: a request of 30 bytes has an
# answer of 3,800, and costs the store as much as ten posts.
_BUNDLE_BYTES: Final = 4096


class Directory:
    """The part of the core that hands out public keys."""

    def __init__(self, desk: Switchboard) -> None:
        self._desk = desk
        # By account, name and device: so many are remembered that they need a bound themselves.
        self.claims: DailyQuota[tuple[int, str, int]] = DailyQuota(1)
        self.claims_in_all: DailyQuota[int] = DailyQuota(1)  # by account

    def publish(self, connection: Connection, request: to_relay.Publish) -> None:
        """Take a device's own prekeys, each signed by its identity."""
        device = connection.known
        identity = device.identity
        work = ask.StorePrekeys(
            device.mailbox,
            tuple(self._checked_prekey(identity, encoded) for encoded in request.prekeys),
        )
        self._desk.persist(work, self._published, connection, request)

    def _checked_prekey(self, identity: Identity, encoded: bytes) -> ask.PublicPrekey:
        try:
            prekey = Prekey.decode(encoded)
            prekey.verify(identity, self._desk.date_ms)
        except (Malformed, BadBundle) as error:
            raise ProtocolError(ErrorCode.BAD_PREKEY, f"A prekey was refused: {error}.") from None
        return ask.PublicPrekey(prekey.kind, prekey.id, prekey.not_after_ms, encoded)

    def _published(
        self,
        connection: Connection,
        request: to_relay.Publish,
        _work: ask.StorePrekeys,
        stored: told.PrekeysStored,
    ) -> None:
        answer = to_client.Published(request.id, stored.one_time_left, stored.one_time_kem_left)
        self._desk.send(connection, answer)

    def lookup(self, connection: Connection, request: to_relay.Lookup) -> None:
        """Entries of the key log."""
        names = tuple((each.username, each.after) for each in request.names)
        work = ask.ReadEntries(names, PAGE_MAX_ENTRIES, PAGE_MAX_BYTES)
        self._desk.read_long(work, self._looked_up, connection, request)

    def _looked_up(
        self,
        connection: Connection,
        request: to_relay.Lookup,
        _work: ask.ReadEntries,
        read: told.EntriesRead,
    ) -> None:
        pages = tuple(
            to_client.AccountPage(page.username, page.total, page.entries) for page in read.pages
        )
        self._desk.send(connection, to_client.LookedUp(request.id, pages))

    def claim(self, connection: Connection, request: to_relay.Claim) -> None:
        """A bundle; beyond the daily quotas without one-time prekeys: nobody drains them."""
        one_time = self._take(connection.known.account.id, request.username, request.device)
        work = ask.ClaimBundle(request.username, request.device, one_time, self._desk.date_ms)
        self._desk.persist(
            work, self._claimed, connection, request, self._not_claimed, _BUNDLE_BYTES
        )

    def _take(self, account: int, username: str, device: int) -> bool:
        date_ms = self._desk.date_ms
        if not self.claims_in_all.take(account, date_ms):
            return False
        if self.claims.take((account, username, device), date_ms):
            return True
        self.claims_in_all.give_back(account)
        return False

    def _claimed(
        self,
        connection: Connection,
        request: to_relay.Claim,
        _work: ask.ClaimBundle,
        claimed: told.BundleClaimed,
    ) -> None:
        self._desk.send(
            connection,
            to_client.Claimed(
                id=request.id,
                identity=claimed.identity,
                identity_signature=claimed.identity_signature,
                signed_prekey=claimed.signed_prekey,
                kem_prekey=claimed.kem_prekey,
                one_time_prekey=claimed.one_time_prekey,
            ),
        )

    def _not_claimed(
        self,
        connection: Connection,
        request: to_relay.Claim,
        work: ask.ClaimBundle,
        error: told.StoreError,
    ) -> None:
        if work.one_time:
            account = connection.known.account.id
            self.claims.give_back((account, request.username, request.device))
            self.claims_in_all.give_back(account)
        raise ProtocolError(error.code, error.detail)
