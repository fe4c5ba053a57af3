"""What a person and this client want to say in private: lines, and items for the outbox."""

from saltline.client.contacts import Contacts
from saltline.client.context import Context
from saltline.client.model import Refused
from saltline.client.outgoing import Outgoing
from saltline.protocol.content import Content, Kind, Receipt, encode_content, encode_receipt
from saltline.protocol.limits import MESSAGE_ID_BYTES, RECEIPT_MAX_IDS, TEXT_MAX_BYTES


def encode_text(text: str) -> bytes:
    """A text as it will be sent. Raises Refused."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("Not sent: the text is not valid Unicode. Nothing left.") from None
    if not data:
        raise Refused("Not sent: the text is empty.")
    if len(data) > TEXT_MAX_BYTES:
        raise Refused(
            f"Not sent: the text has {len(data)} bytes, at most {TEXT_MAX_BYTES} fit into one"
            " message. Send it in parts."
        )
    return data


class Writing:
    """Queues; `Outgoing` moves on from there."""

    def __init__(self, context: Context, contacts: Contacts, outgoing: Outgoing) -> None:
        self._ctx = context
        self._contacts = contacts
        self._outgoing = outgoing

    def queue_text(self, username: str, text: str, message_id: bytes = b"") -> int:
        """A new line at the end of a conversation; returns its row. Raises Refused.

        With the id of a line that is there already, nothing new: the row of that.
        """
        before = self._ctx.own_row(f"@{username}", message_id)
        if before is not None:
            return before
        data = encode_text(text)
        self._contacts.check_may_send(username)
        self._contacts.accept(username)
        ctx, conversation = self._ctx, f"@{username}"
        row, message_id = ctx.add_own_text(conversation, text, message_id)
        content = Content(Kind.TEXT, message_id, username, 0, ctx.now_ms, b"", data)
        ctx.outbox.add(conversation, row, encode_content(content))
        self._outgoing.wait_for_turn(conversation)
        return row

    def requeue(self, row: int) -> None:
        """A failed line again, under its own id. Raises Refused."""
        line = self._ctx.again(row)
        username = line.conversation[1:]
        self._contacts.check_may_send(username)  # raises before anything of this is kept
        content = Content(
            Kind.TEXT, line.id, username, 0, line.sent_ms, b"", line.body.encode("utf-8")
        )
        self._ctx.outbox.add(line.conversation, row, encode_content(content))
        self._outgoing.wait_for_turn(line.conversation)

    def queue_receipts(self) -> None:
        """Tell people what is stored, and what was read."""
        ctx = self._ctx
        if not ctx.timeline.may_owe_receipts:
            return
        for username, read, ids in ctx.timeline.receipts_due(RECEIPT_MAX_IDS):
            body = encode_receipt(Receipt(tuple(ids), read))
            message_id = ctx.random(MESSAGE_ID_BYTES)
            content = Content(Kind.RECEIPT, message_id, username, 0, ctx.now_ms, b"", body)
            ctx.outbox.add(f"@{username}", 0, encode_content(content))
            ctx.timeline.receipts_queued(username, read, ids)
            self._outgoing.wait_for_turn(f"@{username}")
