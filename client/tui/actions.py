"""What each command does."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from saltline.client.model import ContactInfo, Delivery, Refused, Trust
from saltline.client.tui import panes
from saltline.client.tui.commands import COMMANDS, nearest, nothing_sent
from saltline.client.tui.qr import identity_text, qr_rows
from saltline.client.tui.sent import sent_notice
from saltline.client.tui.state import Level, Pane, PaneRow
from saltline.client.tui.theme import THEMES
from saltline.client.tui.wrap import shown
from saltline.protocol.names import BadName, check_room, check_user

if TYPE_CHECKING:
    from saltline.client.tui.screen import Screen

# How far back /retry and /queue look in a conversation.
RECENT_LINES: Final = 500
QUEUE_LINES: Final = 100


class Actions:
    """The table of commands, carried out. Every method raises Refused."""

    def __init__(self, screen: "Screen") -> None:
        self._screen = screen
        self.table: dict[str, Callable[..., None]] = {
            "msg": self._msg,
            "query": self._query,
            "join": self._join,
            "leave": self._leave,
            "rooms": self._rooms,
            "who": self._who,
            "contacts": self._contacts,
            "fingerprint": self._fingerprint,
            "qr": self._qr,
            "verify": self._verify,
            "trust": self._trust,
            "accept": self._accept,
            "block": self._block,
            "unblock": self._unblock,
            "search": self._search,
            "next": screen.open_unread,
            "retry": self._retry,
            "queue": self._queue,
            "reconnect": self._reconnect,
            "status": self._status,
            "theme": self._theme,
            "help": self._help,
            "quit": screen.quit,
        }

    def run(self, name: str, arguments: tuple[str, ...]) -> None:
        """Carry out a command. Raises Refused."""
        try:
            self.table[name](*arguments)
        except BadName as bad:
            raise Refused(f"{bad}{nothing_sent(name)}") from None

    # --- Writing ------------------------------------------------------------------------------

    def _msg(self, who: str, text: str) -> None:
        user = self._other(who)
        line = self._screen.messenger.send(user, text)
        if f"@{user}" == self._screen.state.current:
            self._screen.timeline.grew()
            self._screen.timeline.end()
        else:
            self._screen.state.add_notice(sent_notice(line))
            self._screen.shell.redraw()

    def _query(self, who: str) -> None:
        user = self._other(who)
        screen = self._screen
        screen.open(f"@{user}")
        if screen.state.contact(user).trust is Trust.UNKNOWN:
            found = screen.messenger.fetch_contact(user)
            screen.later(found, self._found, f"Looking up {user}")

    def _found(self, contact: ContactInfo) -> None:
        self._screen.state.forget_contacts()

    def _retry(self, short_id: str = "") -> None:
        screen = self._screen
        lines = screen.messenger.page(screen.state.current, limit=RECENT_LINES)
        failed = [
            line
            for line in lines
            if line.mine
            and line.delivery is Delivery.FAILED
            and line.id.hex().startswith(short_id.lower())
        ]
        if not failed:
            raise Refused("Nothing that failed here" + (" has that id." if short_id else "."))
        for line in failed:
            screen.messenger.retry(line.row)
        screen.say(f"{len(failed)} queued again.")

    def _queue(self) -> None:
        screen = self._screen
        screen.state.refresh_status()
        lines = panes.waiting_lines(screen.messenger, screen.state.order(), QUEUE_LINES)
        if lines:
            screen.show(panes.queue_pane(lines, screen.zone))
        else:
            screen.say("Nothing waits: all that you wrote is on the relay or further.")

    # --- Rooms --------------------------------------------------------------------------------

    def _join(self, name: str) -> None:
        room = _room(name)
        screen = self._screen

        before = screen.state.current

        def joined(_: None) -> None:
            screen.state.refresh_conversations()
            # Never under somebody's fingers: the rest of a private sentence would become public.
            if screen.state.current == before and not screen.shell.draft().text:
                screen.open(room)
            else:
                screen.say(f"You are a member of {room} now. Alt-G goes there.")

        screen.later(screen.messenger.join(room), joined, f"Joining {room}")

    def _leave(self, name: str = "") -> None:
        room = self._this_room(name, "leave")
        screen = self._screen

        def left(_: None) -> None:
            screen.state.refresh_conversations()
            screen.say(f"You left {room}. What was said stays on this disk.")

        screen.later(screen.messenger.leave(room), left, f"Leaving {room}")

    def _rooms(self) -> None:
        screen = self._screen
        mine = {name for name in screen.state.rooms() if screen.state.summary(name).joined}
        screen.later(
            screen.messenger.rooms(),
            lambda found: screen.show(panes.rooms_pane(found, mine)),
            "Listing rooms",
        )

    def _who(self, name: str = "") -> None:
        room = self._this_room(name, "who")
        screen = self._screen
        trust = {
            each.name[1:]: each.trust
            for each in screen.state.summaries.values()
            if each.name.startswith("@")
        }
        screen.later(
            screen.messenger.who(room),
            lambda found: screen.show(panes.members_pane(room, found, trust)),
            f"Listing {room}",
        )

    def _this_room(self, name: str, command: str) -> str:
        if name:
            return _room(name)
        current = self._screen.state.current
        if not current.startswith("#"):
            raise Refused(f"Which room? /{command} #ROOM")
        return current

    # --- People -------------------------------------------------------------------------------

    def _other(self, who: str) -> str:
        user = _user(who)
        if user == self._screen.state.status.username:
            raise Refused("That is you: nothing was done.")
        return user

    def _contacts(self) -> None:
        self._screen.show(panes.contacts_pane(self._screen.messenger.contacts()))

    def _fingerprint(self, who: str = "") -> None:
        screen = self._screen
        if not who:
            screen.show(panes.fingerprint_pane(screen.messenger.own_identity(), own=True))
            return
        self._with_key(
            _user(who), lambda contact: screen.show(panes.fingerprint_pane(contact, own=False))
        )

    def _qr(self) -> None:
        screen = self._screen
        text = identity_text(screen.messenger.own_identity())
        rows = qr_rows(text, ascii_only=not screen.shell.draws_unicode())
        shown_rows = [PaneRow(row, "class:qr", keep_whole=True) for row in rows]
        screen.show(Pane("Your fingerprint", shown_rows))

    def _verify(self, who: str, number: str = "") -> None:
        user = _user(who)
        screen = self._screen
        if number:
            screen.messenger.verify(user, number)
            screen.state.forget_contacts()
            shown_pane = screen.state.pane
            if (
                shown_pane is not None
                and shown_pane.contact
                and shown_pane.contact.username == user
            ):
                screen.close_pane()
            screen.say(f"{user} is verified: the number is the same on both sides.")
            return
        contact = screen.messenger.contact(user)
        if contact.safety_number:
            self._compare(contact)
        else:
            self._with_key(user, self._can_compare)

    def _can_compare(self, contact: ContactInfo) -> None:
        # A question now could take a letter of whatever is being typed for its answer.
        user = contact.username
        self._screen.say(f"{user}'s key is known now: /verify {user} shows the number.")

    def _compare(self, contact: ContactInfo) -> None:
        screen = self._screen
        user = contact.username
        screen.show(panes.verification_pane(contact, screen.state.status.username))

        def agreed() -> None:
            # The number that was compared, not whatever is known by now.
            screen.messenger.verify(user, contact.safety_number)
            screen.state.forget_contacts()
            screen.close_pane()
            screen.say(f"{user} is verified.")

        screen.ask(f"Does {user} read the very same number? y marks {user} verified, n not", agreed)

    def renew_pane(self) -> None:
        """Show what a pane is about as it is by now. A question about what was there is over."""
        screen, pane = self._screen, self._screen.state.pane
        if pane is None or pane.contact is None or pane.renew is None:
            return
        contact = screen.state.contact(pane.contact.username)
        if contact == pane.contact:
            return
        if screen.state.question is not None:
            screen.answer(False)
            screen.say(f"What is known of {contact.username} changed. Look again before you agree.")
        screen.show(pane.renew(contact))

    def _with_key(self, user: str, then: Callable[[ContactInfo], None]) -> None:
        """Use what the vault knows of a person, else ask the relay."""
        screen = self._screen
        contact = screen.messenger.contact(user)
        if contact.fingerprint:
            then(contact)
        else:
            screen.later(screen.messenger.fetch_contact(user), then, f"Looking up {user}")

    def _trust(self, who: str, number: str) -> None:
        user = _user(who)
        self._screen.messenger.trust(user, number)
        self._screen.state.forget_contacts()
        self._screen.say(f"{user}'s new key is taken as first seen. What waited leaves now.")

    def _accept(self, who: str) -> None:
        user = self._other(who)
        self._screen.messenger.accept(user)
        self._refresh()
        self._screen.say(f"{user} gets receipts from now on. /verify {user} compares keys.")

    def _block(self, who: str) -> None:
        user = self._other(who)
        self._screen.messenger.block(user)
        self._refresh()
        self._screen.say(f"{user} is blocked and not told so. /unblock {user} undoes it.")

    def _unblock(self, who: str) -> None:
        user = _user(who)
        self._screen.messenger.unblock(user)
        self._refresh()
        self._screen.say(f"{user} is no longer blocked.")

    def _refresh(self) -> None:
        self._screen.state.forget_contacts()
        self._screen.state.refresh_conversations()

    # --- The rest -----------------------------------------------------------------------------

    def _search(self, text: str) -> None:
        option, _, rest = text.partition(" ")
        everywhere = option == "-a"
        query = rest.strip() if everywhere else text
        if not query:
            raise Refused(f"{COMMANDS['search'].usage}: the words are missing.")
        found = self._screen.find(query, everywhere=everywhere)
        if found:
            self._screen.show(panes.hits_pane(query, found, self._screen.zone))

    def _reconnect(self) -> None:
        self._screen.messenger.reconnect()

    def _status(self) -> None:
        screen = self._screen
        screen.state.refresh_status()
        screen.show(panes.status_pane(screen.state, screen.now()))

    def _theme(self, name: str) -> None:
        if name not in THEMES:
            raise Refused(f"No theme {shown(name, newlines=False)!r}. Themes: {', '.join(THEMES)}.")
        self._screen.shell.set_theme(name)

    def _help(self, name: str = "") -> None:
        bare = name.removeprefix("/").lower()
        if not bare:
            self._screen.show(panes.help_pane())
        elif bare in COMMANDS:
            self._screen.show(panes.command_pane(COMMANDS[bare]))
        else:
            meant = nearest(bare[:40])
            hint = f" Did you mean /help {meant}?" if meant else ""
            self._screen.say(f"No command /{shown(bare[:20], newlines=False)}.{hint}", Level.ERROR)


def _user(text: str) -> str:
    return check_user(text.removeprefix("@"))


def _room(text: str) -> str:
    return check_room("#" + text.removeprefix("#"))
