"""What Tab offers: commands, people, rooms, themes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from saltline.client.model import Trust
from saltline.client.tui.commands import COMMANDS, Argument
from saltline.client.tui.state import ViewState
from saltline.client.tui.theme import THEMES
from saltline.protocol.names import ROOM_PATTERN, USER_PATTERN

OFFERED_MAX: Final = 200


class InputCompleter(Completer):
    """Completes the word before the cursor by its place in the line."""

    def __init__(self, state: ViewState, present: Callable[[], Iterable[str]]) -> None:
        self._state = state
        self._present = present  # people who spoke or came online

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """See Completer."""
        before = document.text_before_cursor
        start = max(before.rfind(" "), before.rfind("\n")) + 1
        word = before[start:]
        offered, ending = self._offered(before[:start], word)
        bare = word.lower()
        found = 0
        for candidate in offered:
            if candidate.lower().startswith(bare) and found < OFFERED_MAX:
                found += 1
                yield Completion(candidate + ending, -len(word), display=candidate)

    def _offered(self, before: str, word: str) -> tuple[Sequence[str], str]:
        """What fits in the word's place, and what follows it."""
        if before.startswith("/") and not before.startswith("//"):
            name, *earlier = before[1:].split()
            command = COMMANDS.get(name.lower())
            if command is None or len(earlier) >= len(command.arguments):
                return (), ""
            return self._for(command.arguments[len(earlier)], word), " "
        if not before and word.startswith("/"):
            return [f"/{name}" for name in COMMANDS], " "
        if word.startswith("#"):
            return self._rooms(), " "
        if word.startswith("@"):
            return [f"@{user}" for user in self._users()], " "
        if not word:
            return (), ""
        return self._users(), ": " if not before and self._state.current[:1] == "#" else " "

    def _for(self, argument: Argument, word: str) -> Sequence[str]:
        match argument:
            case Argument.USER:
                users = self._users()
                return [f"@{user}" for user in users] if word.startswith("@") else users
            case Argument.REQUEST:
                return [name[1:] for name in self._state.requests()]
            case Argument.BLOCKED:
                return self._blocked()
            case Argument.ROOM:
                return self._rooms()
            case Argument.COMMAND:
                return list(COMMANDS)
            case Argument.THEME:
                return list(THEMES)
            case Argument.TEXT:
                return ()

    def _users(self) -> list[str]:
        known = {name[1:] for name in self._state.order() if name.startswith("@")}
        known.update(self._present())
        return sorted(user for user in known if USER_PATTERN.fullmatch(user))

    def _blocked(self) -> list[str]:
        summaries = self._state.summaries.values()
        return sorted(each.name[1:] for each in summaries if each.trust is Trust.BLOCKED)

    def _rooms(self) -> list[str]:
        return [room for room in self._state.rooms() if ROOM_PATTERN.fullmatch(room)]


class ConversationCompleter(Completer):
    """Completes the name of a conversation, with or without its first sign."""

    def __init__(self, state: ViewState) -> None:
        self._state = state

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """See Completer."""
        word = document.text_before_cursor
        for name in conversations(self._state, word):
            yield Completion(name, -len(word))


def conversations(state: ViewState, word: str) -> list[str]:
    """Conversations whose name begins with `word`, then those that hold it elsewhere."""
    bare = word.lower().lstrip("@#")
    signed = word[:1] if word[:1] in ("@", "#") else ""
    fitting = [
        name
        for name in state.order()
        if name.startswith(signed)
        and bare in name[1:]
        and (USER_PATTERN.fullmatch(name[1:]) is not None)
    ]
    return sorted(fitting, key=lambda name: not name[1:].startswith(bare))[:OFFERED_MAX]
