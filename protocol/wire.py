"""What the structs of the wire are made of: an exact array, and fields with bounds."""

from typing import Annotated

from msgspec import Meta, Struct

from saltline.protocol import limits

RequestId = Annotated[int, Meta(gt=0, lt=2**32)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TimeMs = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Device = Annotated[int, Meta(gt=0, lt=2**32)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
UserName = Annotated[str, Meta(max_length=limits.NAME_MAX_CHARS)]
RoomName = Annotated[str, Meta(max_length=limits.ROOM_MAX_CHARS)]
InviteCode = Annotated[str, Meta(max_length=64)]
ShortText = Annotated[str, Meta(max_length=400)]
PrekeyId = Annotated[int, Meta(ge=0, lt=2**32)]
PrekeyIds = Annotated[tuple[PrekeyId, ...], Meta(max_length=limits.ONE_TIME_IDS_MAX)]
PrekeyBytes = Annotated[bytes, Meta(max_length=limits.PREKEY_MAX_BYTES)]
EntryBytes = Annotated[bytes, Meta(max_length=limits.KEYLOG_ENTRY_MAX_BYTES)]
IdentityBytes = Annotated[bytes, Meta(max_length=256)]
Envelope = Annotated[bytes, Meta(min_length=1, max_length=limits.ENVELOPE_MAX_BYTES)]
Statement = Annotated[bytes, Meta(max_length=limits.ROOM_STATEMENT_MAX_BYTES)]
Generation = Annotated[bytes, Meta(max_length=limits.GENERATION_BYTES)]
TreeHead = Annotated[bytes, Meta(max_length=limits.TREE_HEAD_MAX_BYTES)]
Features = Annotated[
    tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=limits.FEATURES_MAX)
]


class Wire(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all wire structs: an exact msgpack array."""
