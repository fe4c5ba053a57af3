"""What became of own messages that are not on screen: a notice that follows one, and failures."""

from typing import Final

from saltline.client.model import Delivery, Line, Messenger
from saltline.client.tui.handover import Changes
from saltline.client.tui.state import Level, Notice, ViewState
from saltline.client.tui.wrap import shown

_WORDS: Final = {
    Delivery.NONE: "sent",
    Delivery.QUEUED: "queued on this disk",
    Delivery.RELAYED: "on the relay",
    Delivery.DELIVERED: "delivered",
    Delivery.READ: "read",
}


def sent_notice(line: Line) -> Notice:
    """How far a private message has come."""
    name = shown(line.conversation, newlines=False)
    reason = shown(line.reason, newlines=False).rstrip(".")
    where = f"/query {name[1:]} shows it."
    if line.delivery is Delivery.FAILED:
        why = reason if reason.startswith("Not sent") else f"Not sent: {reason or 'it failed'}"
        return Notice(f"To {name}: {why}. {where}", Level.ERROR, line.row)
    words = f"To {name}, encrypted: {_WORDS[line.delivery]}"
    if line.delivery is Delivery.QUEUED:
        words += f" ({reason}). {where}" if reason else f". {where}"
    else:
        words += "."
    return Notice(words, row=line.row)


def follow(state: ViewState, messenger: Messenger, changes: Changes) -> None:
    """Bring notices and the marks of failures up to date with what changed."""
    said = {notice.row for notice in state.notice_log if notice.row}
    if not changes.changed_many:
        said &= changes.changed
    for row in sorted(said):
        line = messenger.line(row)
        if line is not None:
            state.replace_notice(sent_notice(line))
    for row in sorted(changes.refused | (changes.changed & state.failed.keys())):
        line = messenger.line(row)
        if line is None or line.delivery is not Delivery.FAILED:
            state.failed.pop(row, None)
        elif line.mine and not (state.reading and line.conversation == state.current):
            state.failed[row] = line.conversation
