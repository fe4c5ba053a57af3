"""Who people are: their key log entries as the relay shows them, and what was decided of them."""

from collections.abc import Callable
from dataclasses import replace

from saltline.client.context import SYSTEM, Context, Refusal
from saltline.client.model import (
    ContactInfo,
    ConversationChanged,
    ExitCode,
    Refused,
    Trust,
)
from saltline.client.vault import views
from saltline.client.vault.people import Person
from saltline.crypto.encoding import Malformed
from saltline.crypto.keylog import Account, BadEntry, Entry, replay
from saltline.crypto.primitives import CryptoError
from saltline.crypto.safety import same_number
from saltline.crypto.signatures import Identity
from saltline.protocol.limits import LOOKUP_MAX_NAMES
from saltline.protocol.messages import RelayMessage
from saltline.protocol.names import BadName, check_user
from saltline.protocol.to_client import AccountPage, LookedUp
from saltline.protocol.to_relay import Lookup, LookupName

# What a lookup found: the account, or a refusal (UNKNOWN_USER where there is none).
Found = Callable[["Account | Refusal"], None]
UNKNOWN = Refusal("unknown_user", "There is no such user on this relay.")
CONTRADICTED = Refusal("contradicted", "The relay's answer contradicts what is known of this key.")
_EMPTY = Refusal("empty", "The relay's answer was empty. It is asked again.")
# Nobody's key changes as often; a relay could go on for ever.
ENTRIES_MAX = 1000
CACHED_MAX = 10_000  # accounts; authors of rooms may be without number


class Contacts:
    """Accounts as far as their entries were seen, and the trust in them.

    A key is known by the first entries that the relay shows; from then on only entries that follow
    from these, by their signatures, change it.
    """

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self._accounts: dict[str, Account] = {}
        self._waiting: dict[str, list[Found]] = {}
        self._wanted: list[str] = []

    def forget_caches(self) -> None:
        """A turn was rolled back: what is in memory may not be on disk."""
        self._accounts.clear()

    def link_lost(self) -> None:
        """Questions on their way will not be answered."""
        self._waiting.clear()
        self._wanted.clear()

    # --- accounts ------------------------------------------------------------------------------

    def account(self, username: str) -> Account | None:
        """What the accepted entries of a name give; None if there are none."""
        known = self._accounts.get(username)
        if known is None:
            entries = self._ctx.people.entries(username)
            if not entries:
                return None
            known = self._accounts[username] = replay(entries, self._ctx.account.log_key)
        return known

    def was_ever_live(self, username: str, device: int) -> Identity | None:
        """The identity of this device, among all that the name ever had."""
        for data in self._ctx.people.entries(username):
            entry = Entry.decode(data)
            if entry.identity.device == device:
                return entry.identity
        return None

    def look_up(self, username: str, found: Found) -> None:
        """Ask the relay for a name's entries; `found` is called in a later turn."""
        waiting = self._waiting.setdefault(username, [])
        if not waiting:
            self._wanted.append(username)
        waiting.append(found)

    @property
    def is_looking(self) -> bool:
        """Whether an answer is waited for."""
        return bool(self._waiting)

    def flush(self) -> None:
        """Send the lookups that this turn wanted, many names in one request."""
        while self._wanted and self._ctx.ready:
            names, self._wanted = (
                self._wanted[:LOOKUP_MAX_NAMES],
                self._wanted[LOOKUP_MAX_NAMES:],
            )
            self._ask(names)
        if len(self._accounts) > CACHED_MAX:
            self.forget_caches()

    def _ask(self, names: list[str]) -> None:
        queries = tuple(LookupName(name, self._after(name)) for name in names)
        self._ctx.request(
            lambda number: Lookup(number, queries),
            lambda answer: self._looked_up(names, answer),
            lambda refusal: self._refused(names, refusal),
        )

    def _after(self, username: str) -> int:
        """Ask from the last entry that is held, so that the answer shows it again."""
        known = self.account(username)
        return 0 if known is None else known.next_number - 1

    def _refused(self, names: list[str], refusal: Refusal) -> None:
        for name in names:
            for found in self._waiting.pop(name, []):
                found(refusal)

    def _looked_up(self, names: list[str], answer: RelayMessage) -> None:
        assert isinstance(answer, LookedUp)
        pages = {page.username: page for page in answer.accounts}
        if not any(name in pages for name in names):
            self._refused(names, _EMPTY)
            return
        for name in names:
            page = pages.get(name)
            result = None if page is None else self._merge(page)
            if result is None:
                self._wanted.append(name)  # left out, or its page ended early: asked for again
                continue
            for found in self._waiting.pop(name, []):
                found(result)

    def _merge(self, page: AccountPage) -> "Account | Refusal | None":
        """Take in what follows from what is held. None: more is to be asked for."""
        name = page.username
        before = self.account(name)
        if before is None and page.total == 0:
            return UNKNOWN
        try:
            entries = list(page.entries)
            if before is not None:
                self._check_last(before, page, entries)
                entries = entries[1:]
            after = self._take_entries(name, before, entries)
            if after.next_number < page.total and (not entries or after.next_number > ENTRIES_MAX):
                raise BadEntry("the entries do not come to an end")
        except (BadEntry, Malformed, CryptoError):
            self._contradiction(name)
            return CONTRADICTED
        finally:
            self._notice_change(before, self._accounts.get(name))
        return after if after.next_number >= page.total else None

    def _take_entries(self, name: str, known: Account | None, entries: list[bytes]) -> Account:
        first = known is None
        for data in entries:
            known = self._apply(name, known, data)
        if known is None:
            raise BadEntry("a name without entries")
        if first and name == self._ctx.account.username and not self._has_our_key():
            self._ctx.people.forget_entries(name)
            del self._accounts[name]
            raise BadEntry("our own key is not among them")
        return known

    def _has_our_key(self) -> bool:
        """Whether the entries that are held under our own name know of us."""
        me = self._ctx.me.identity
        return self.was_ever_live(me.username, me.device) == me

    def _check_last(self, known: Account, page: AccountPage, entries: list[bytes]) -> None:
        if page.total < known.next_number or not entries:
            raise BadEntry("the relay shows fewer entries than before")
        if Entry.decode(entries[0]).hash != known.last_hash:
            raise BadEntry("the relay shows another entry than before")

    def _apply(self, username: str, known: Account | None, data: bytes) -> Account:
        entry = Entry.decode(data)
        if entry.username != username:
            raise BadEntry("an entry of another name")
        log_key = self._ctx.account.log_key
        number = 0 if known is None else known.next_number
        account = Account.start(entry, log_key) if known is None else known.apply(entry, log_key)
        self._ctx.people.add_entry(username, number, data)
        self._accounts[username] = account
        return account

    def _contradiction(self, username: str) -> None:
        me = self._ctx.account.username
        whose = "your own account" if username == me else username
        self._ctx.alert(
            SYSTEM if username == me else f"@{username}",
            f"The relay shows keys for {whose} that do not follow from those it showed before."
            " They were not taken, and nothing was sent to them. Ask the relay's admin, and compare"
            " safety numbers in person.",
        )

    def _notice_change(self, before: Account | None, after: Account | None) -> None:
        """Once for all that an answer brought."""
        if before is None or after is None or before == after:
            return
        name = after.username
        if name == self._ctx.account.username:
            if not after.is_live(self._ctx.me.identity):
                self._ctx.alert(
                    SYSTEM,
                    "Your key was ended on this relay. If you did not ask for it, tell its admin.",
                )
            return
        if after.resets > before.resets:
            self._key_changed(before, after)
        elif len(after.live) > len(before.live):
            how = self.person(name)
            by = "one you verified" if how.verified else "one seen before"
            self._ctx.say(f"@{name}", f"{name} added a device, signed by {by}.")
        if after.closed:
            self._ctx.say(
                f"@{name}", f"{name}'s account was closed. Nothing can be sent to it any more."
            )
        self._ctx.emit(ConversationChanged(f"@{name}"))

    def _key_changed(self, before: Account, after: Account) -> None:
        name = after.username
        person = self.person(name)
        old_root = person.old_root or before.root
        self._ctx.people.save(replace(person, verified=False, changed=True, old_root=old_root))
        self._ctx.alert(
            f"@{name}",
            f"{name}'s key changed ({old_root.fingerprint[:9]} -> {after.root.fingerprint[:9]})."
            f" Nothing is sent to {name} until you decide. Compare in person, then: /verify {name}",
        )

    # --- trust ---------------------------------------------------------------------------------

    def person(self, username: str) -> Person:
        """What was decided about somebody; nothing yet for a stranger."""
        return self._ctx.people.person(username) or Person(username)

    def trust(self, username: str) -> Trust:
        """The one word for it."""
        person = self._ctx.people.person(username)
        return views.trust_of(person, self.account(username) is not None)

    def check_may_send(self, username: str) -> None:
        """Raises Refused where nothing may be sent to somebody."""
        try:
            check_user(username)
        except BadName as error:
            raise Refused(f"Not sent: {error}") from None
        if username == self._ctx.account.username:
            raise Refused("Not sent: that is you.")
        if username == SYSTEM[1:]:
            raise Refused("Not sent: that name is this program's own.")
        self._ctx.check_not_ended()
        person = self.person(username)
        if person.blocked:
            raise Refused(
                f"Not sent: you blocked {username}. Nothing left this computer."
                f" To write again: /unblock {username}",
                ExitCode.NOT_TRUSTED,
            )
        account = self.account(username)
        if person.changed and account is not None:
            old = (person.old_root or account.root).fingerprint[:9]
            raise Refused(
                f"Not sent: {username}'s key changed ({old} -> {account.root.fingerprint[:9]})."
                f" Nothing left this computer. Compare in person: /verify {username}",
                ExitCode.NOT_TRUSTED,
            )

    def accept(self, username: str) -> None:
        """Somebody we talk to: receipts may go out."""
        person = self.person(username)
        if not person.accepted:
            self._ctx.people.save(replace(person, accepted=True))
            self._ctx.timeline.may_owe_receipts = True
            self._ctx.emit(ConversationChanged(f"@{username}"))

    def set_blocked(self, username: str, blocked: bool) -> None:
        """Take nothing more from somebody, or again."""
        self._ctx.people.save(replace(self.person(username), blocked=blocked))
        self._ctx.timeline.may_owe_receipts = True
        self._ctx.timeline.ensure(f"@{username}")
        self._ctx.emit(ConversationChanged(f"@{username}"))

    def verify(self, username: str, number: str | None) -> ContactInfo:
        """Mark verified; with `number`, only if it is the safety number. Raises Refused."""
        self._compare(username, number)
        person = self.person(username)
        self._decide(replace(person, verified=True, changed=False, old_root=None))
        return views.contact(self._ctx.vault, username)

    def accept_change(self, username: str, number: str) -> ContactInfo:
        """Take a changed key as first seen. Raises Refused."""
        self._compare(username, number)
        person = self.person(username)
        if not person.changed:
            raise Refused(f"{username}'s key has not changed; nothing to decide.")
        self._decide(replace(person, verified=False, changed=False, old_root=None))
        return views.contact(self._ctx.vault, username)

    def _decide(self, person: Person) -> None:
        self._ctx.people.save(person)
        self._ctx.timeline.may_owe_receipts = True
        self._ctx.timeline.ensure(f"@{person.username}")
        self._ctx.emit(ConversationChanged(f"@{person.username}"))

    def _compare(self, username: str, number: str | None) -> None:
        if self.account(username) is None:
            raise Refused(
                f"No key of {username} is known yet. Nothing was marked.", ExitCode.UNKNOWN_NAME
            )
        digits = "".join((number or "").split())
        if number is not None and not (len(digits) == 60 and digits.isascii() and digits.isdigit()):
            raise Refused(
                f"A safety number has 60 digits, and this has {sum(c.isdigit() for c in digits)}."
                " Nothing was marked."
            )
        known = views.contact(self._ctx.vault, username).safety_number
        if number is not None and not same_number(known, number):
            raise Refused(
                f"That is not the safety number of you and {username}. Nothing was marked, and"
                " somebody may be between you: compare all 60 digits again, in person or by voice.",
                ExitCode.NOT_TRUSTED,
            )
