"""What the screen does: one conversation at a time, and what is typed there.

Everything here runs on the screen's loop. The terminal is behind `state.Shell`.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from datetime import tzinfo
from functools import partial
from typing import Final, TypeVar

from saltline.client.model import ConnectionState, Line, Messenger, Refused
from saltline.client.tui import panes
from saltline.client.tui.actions import Actions
from saltline.client.tui.commands import Call, Say, Wrong, looks_like_command, looks_private, parse
from saltline.client.tui.format import Formatter, Row
from saltline.client.tui.handover import Changes
from saltline.client.tui.prompt import Paste, clean_surrogates
from saltline.client.tui.sent import follow
from saltline.client.tui.state import Draft, Hits, Level, Pane, Question, Shell, ViewState
from saltline.client.tui.statusbar import refused_words
from saltline.client.tui.timeline import TimelineView
from saltline.client.tui.wrap import shown
from saltline.protocol.names import LOBBY

Result = TypeVar("Result")

SEARCH_LIMIT: Final = 200
PANE_ROWS_MAX: Final = 1_000_000  # further than any pane; drawing it stops at its end
# Lines that come in quick succession are marked read, and receipted, together.
MARK_READ_DELAY_S: Final = 0.2


class Screen:
    """The view's behaviour. `now` is monotonic seconds."""

    def __init__(
        self,
        messenger: Messenger,
        shell: Shell,
        *,
        now: Callable[[], float] = time.monotonic,
        zone: tzinfo | None = None,
    ) -> None:
        self.messenger = messenger
        self.shell = shell
        self.now = now
        self.zone = zone
        self.state = ViewState(messenger)
        self.timeline = TimelineView(messenger, Formatter(self.state.status.username, zone))
        self._actions = Actions(self)
        self._timeline_drawn = False
        self._marked: dict[str, int] = {}
        self._to_mark: dict[str, int] = {}

    def start(self) -> None:
        """Open the conversation to begin with: the lobby, else what is unread, else the first."""
        order = self.state.order()
        first = LOBBY if LOBBY in order else self.state.next_unread() or next(iter(order), "")
        if first:
            self.open(first)

    # --- Conversations ------------------------------------------------------------------------

    def open(self, name: str) -> None:
        """Show a conversation; the draft of the one before stays with that one."""
        state = self.state
        self.close_pane()
        if name == state.current:
            return
        draft = self.shell.draft()
        if draft.text:
            state.drafts[state.current] = draft
        else:
            state.drafts.pop(state.current, None)
        if name not in state.summaries:
            state.opened[name] = None
        state.current = name
        state.begin_divider(name)
        self.timeline.open(name, state.divider)
        self.shell.set_draft(name, state.drafts.pop(name, Draft()))
        self.shell.redraw()

    def step(self, by: int) -> None:
        """Go `by` conversations down the list."""
        name = self.state.neighbour(by)
        if name is not None:
            self.open(name)

    def jump(self, text: str) -> None:
        """Go to a conversation that exists, by its name or the only one that begins so."""
        bare, order = text.lower().lstrip("@#"), self.state.order()
        fitting = [name for name in order if text in (name, name[1:])]
        fitting = fitting or [name for name in order if name[1:].startswith(bare)]
        if len(fitting) != 1:
            what = "No conversation begins" if not fitting else "Several conversations begin"
            raise Refused(f"{what} with {bare}. /query NAME opens a new one, /join #ROOM too.")
        self.open(fitting[0])

    def open_place(self, place: int) -> None:
        """Go to the conversation at a place of the list, from 1."""
        order = self.state.order()
        if place <= len(order):
            self.open(order[place - 1])

    def open_unread(self) -> None:
        """Go to the next conversation with unread lines."""
        name = self.state.next_unread()
        if name is not None:
            self.open(name)
        else:
            self.say("Nothing unread elsewhere.")

    # --- What is typed ------------------------------------------------------------------------

    def submit(self, typed: str) -> None:
        """Enter was pressed."""
        text = clean_surrogates(typed)
        self.state.notices.clear()
        if not text.strip():
            if text:
                self.say("Not sent: there is nothing in it but blanks.")
            return
        match parse(text):
            case Wrong(sentence):
                self.say(sentence, Level.ERROR)
            case Call(command, arguments):
                self._run(text, lambda: self._actions.run(command.name, arguments))
            case Say(body):
                self._submit_message(text, body)

    def _submit_message(self, typed: str, body: str) -> None:
        name = self.state.current
        if not name:
            self.say("Not sent: no conversation is open. /query NAME, or /join #ROOM.", Level.ERROR)
            return
        safe, known = shown(name, newlines=False), self.known_users()
        doubt = ""
        if name.startswith("#"):
            if looks_private(body, known):
                doubt = f"a command or a private message. Post it in {safe}, PUBLIC? y/n"
        elif body == typed and looks_like_command(body, known):
            doubt = f"a command. Send it to {safe} as a message? y/n"

        def send() -> None:
            self._run(typed, lambda: self._send(name, body))

        if doubt:
            self.ask(f"This looks like {doubt}", send)
        else:
            send()

    def _run(self, typed: str, act: Callable[[], None]) -> None:
        """Empty the input and act; what was refused comes back to be mended."""
        before = self.state.current
        self.shell.set_draft(before, Draft())
        try:
            act()
        except Refused as refused:
            self.say_refused(refused)
            if self.state.current == before:
                self.shell.set_draft(before, Draft(typed, len(typed)))
            return
        self.shell.remember(before, typed)

    def _send(self, name: str, body: str) -> None:
        if name.startswith("#"):
            if not self.state.summary(name).joined:
                raise Refused(f"Not sent: you are not a member of {name}. /join {name}")
            self.messenger.post(name, body)
        else:
            self.messenger.send(name[1:], body)
        self.state.divider = None
        self.timeline.set_divider(None)
        self.timeline.grew()
        self.timeline.end()
        self.close_pane()

    def paste(self, paste: Paste) -> None:
        """Take a paste into the input, after a question if it is long."""
        if self.state.question is not None:
            return
        target = shown(self.state.current, newlines=False) or "the input"
        if paste.too_long:
            self.say(
                f"Not pasted: {paste.described()}, and a message holds 64 KiB. Nothing was sent.",
                Level.ERROR,
            )
        elif paste.asks:
            public = " (PUBLIC)" if target.startswith("#") else ""
            self.ask(
                f"Paste {paste.described()} into the message to {target}{public}? y/n",
                lambda: self.shell.insert(paste.text),
            )
        else:
            self.shell.insert(paste.text)

    def known_users(self) -> set[str]:
        """People whose names have been seen here."""
        people = {name[1:] for name in self.state.order() if name.startswith("@")}
        return people | self.timeline.authors() | set(self.state.presence)

    # --- Saying and asking --------------------------------------------------------------------

    def say(self, text: str, level: Level = Level.INFO) -> None:
        """Show a sentence above the prompt."""
        self.state.notice(shown(text), level)
        self.shell.redraw()

    def say_refused(self, refused: Refused) -> None:
        """Show why something was not done."""
        self.say(refused.sentence, Level.ERROR)

    def ask(self, text: str, yes: Callable[[], None]) -> None:
        """Ask in the prompt's place."""
        self.state.question = Question(shown(text), yes)
        self.shell.redraw()

    def answer(self, agreed: bool) -> None:
        """Take the answer to the question."""
        question, self.state.question = self.state.question, None
        if question is None:
            return
        try:
            if agreed:
                question.yes()
            else:
                question.no()
        except Refused as refused:
            self.say_refused(refused)
        self.shell.redraw()

    def show(self, pane: Pane) -> None:
        """Put a command's answer over the timeline."""
        self.state.pane = pane
        self.shell.redraw()

    def close_pane(self) -> None:
        """Show the timeline again."""
        self.state.pane = None

    def escape(self) -> None:
        """Close what is on top."""
        if self.state.question is not None:
            self.answer(False)
        elif self.state.pane is not None:
            self.close_pane()
        elif self.state.hits is not None:
            self.state.hits = None
            self.timeline.end()
        self.state.notices.clear()

    def later(self, future: "Future[Result]", then: Callable[[Result], None], doing: str) -> None:
        """Call `then` on the screen's loop when the relay has answered."""

        def done(finished: "Future[Result]") -> None:
            self.shell.soon(lambda: self._finish(finished, then, doing))

        future.add_done_callback(done)

    def _finish(self, future: "Future[Result]", then: Callable[[Result], None], doing: str) -> None:
        try:
            then(future.result())
        except Refused as refused:
            self.say_refused(refused)
        except (CancelledError, TimeoutError):
            self.say(f"{doing}: the relay did not answer. Nothing was changed.", Level.ERROR)
        self.shell.redraw()

    # --- Finding ------------------------------------------------------------------------------

    def find(self, query: str, *, everywhere: bool = False) -> Sequence[Line]:
        """Search; F3 walks through what was found."""
        where = None if everywhere else (self.state.current or None)
        found = list(self.messenger.search(query, where, SEARCH_LIMIT))
        self.state.hits = Hits(query, found) if found else None
        if not found:
            self.say(f"Nothing with {shown(query, newlines=False)!r} found.")
        return found

    def next_hit(self) -> bool:
        """Go to the next line that was found; False if there is nothing to walk through."""
        hits = self.state.hits
        if hits is None:
            return False
        hits.position = (hits.position + 1) % len(hits.lines)
        line = hits.lines[hits.position]
        self.open(line.conversation)
        self.timeline.show_line(line.row)
        self.state.notices.clear()
        self.say(f"Found {hits.position + 1} of {len(hits.lines)}: F3 next older, Esc ends.")
        return True

    # --- Frames -------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> None:
        """Take in what the client's thread reported."""
        differs = self.state.apply(changes, self.now())
        follow(self.state, self.messenger, changes)
        link = changes.connection
        if link is not None and link.state is ConnectionState.REFUSED:
            self.say(refused_words(link.detail), Level.ERROR)
        if changes.conversations:
            self._actions.renew_pane()
        if self.state.current in changes.added:
            self.timeline.grew()
        if changes.changed_many:
            self.timeline.changed_all()
        elif changes.changed:
            self.timeline.changed(changes.changed)
        self.timeline.set_divider(self.state.divider)
        if not self.state.current and self.state.summaries:
            self.start()
        if differs:
            self.shell.redraw()

    def timeline_rows(self, width: int, height: int) -> list[Row]:
        """The middle of the screen: the timeline, or a pane over it."""
        if self.state.pane is not None:
            return panes.pane_rows(self.state.pane, width, height)
        if not self.state.current:
            return panes.welcome_rows(self.state.status.username, width, height)
        rows = self.timeline.rows(width, height)
        self._timeline_drawn = True
        if self.timeline.bottom_row == 0:
            return panes.empty_rows(self.state.current, width, height)
        return rows

    def scroll(self, by: int) -> None:
        """The mouse's wheel."""
        if self.state.pane is not None:
            self.state.pane.top += by
        else:
            self.timeline.scroll(by)

    def page(self, direction: int) -> None:
        """PgUp (-1) and PgDn (1)."""
        if self.state.pane is not None:
            self.state.pane.top += direction * max(1, self.state.pane.room - 1)
        elif direction < 0:
            self.timeline.page_up()
        else:
            self.timeline.page_down()

    def home(self) -> None:
        """The beginning of what is on top."""
        if self.state.pane is not None:
            self.state.pane.top = 0
        else:
            self.timeline.home()

    def end(self) -> None:
        """The end of what is on top."""
        if self.state.pane is not None:
            self.state.pane.top = PANE_ROWS_MAX
        else:
            self.timeline.end()

    def help(self) -> None:
        """F1."""
        self.show(panes.help_pane())

    def frame_done(self) -> None:
        """A frame is on the screen: what it showed to its end has been read."""
        drawn, self._timeline_drawn = self._timeline_drawn, False
        self.state.reading = drawn and self.timeline.following
        if self.state.reading:
            self.state.saw_failures(self.state.current)
        name, row = self.state.current, self.timeline.bottom_row
        if not self.state.reading or row <= self._marked.get(name, 0):
            return
        if self.state.summary(name).unread:
            if not self._to_mark:
                self.shell.after(MARK_READ_DELAY_S, self._mark_read)
            self._to_mark[name] = self._marked[name] = row

    def _mark_read(self) -> None:
        rows, self._to_mark = self._to_mark, {}
        for name, row in rows.items():
            # Behind a mailbox that is being taken in, this was seen to wait 150 ms.
            self.shell.aside(partial(self.messenger.mark_read, name, row))

    # --- Leaving ------------------------------------------------------------------------------

    def quit(self) -> None:
        """Leave, after a question if something typed would be lost."""
        names = sorted(self.state.drafts)
        if self.shell.draft().text.strip():
            names.append(self.state.current)
        if names:
            targets = shown(", ".join(name or "nobody" for name in names[:3]), newlines=False)
            self.ask(f"Quit and lose what you typed to {targets}? y/n", self.shell.quit)
        else:
            self.shell.quit()
