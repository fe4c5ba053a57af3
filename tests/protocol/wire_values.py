"""Values for the structs of the wire, made from the bounds that the structs declare."""

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from saltline.protocol import content
from saltline.protocol.messages import ClientMessage, RelayMessage

Values = list[Any]

CLIENT_STRUCTS: tuple[type[msgspec.Struct], ...] = get_args(ClientMessage)
RELAY_STRUCTS: tuple[type[msgspec.Struct], ...] = get_args(RelayMessage)
CONTENT_STRUCTS: tuple[type[msgspec.Struct], ...] = (content.Content, content.Receipt)


def struct_type(struct: type[msgspec.Struct]) -> inspect.StructType:
    """What msgspec knows of a struct."""
    kind = inspect.type_info(struct)
    assert isinstance(kind, inspect.StructType)
    return kind


def elements(kind: inspect.StructType, fields: Values) -> Values:
    """The array that stands for a struct: its tag, if it has one, and its fields."""
    return fields if kind.tag is None else [kind.tag, *fields]


def good(kind: inspect.Type) -> Any:
    """A small value that a field takes."""
    match kind:
        case inspect.IntType():
            return max(0 if kind.ge is None else kind.ge, 0 if kind.gt is None else kind.gt + 1)
        case inspect.BoolType():
            return True
        case inspect.StrType():
            return "a" * (kind.min_length or 1)
        case inspect.BytesType():
            return b"a" * (kind.min_length or 1)
        case inspect.VarTupleType():
            return [good(kind.item_type)] * (kind.min_length or 1)
        case inspect.StructType():
            return elements(kind, [good(field.type) for field in kind.fields])
    raise AssertionError(f"a kind of field that the tests do not know: {kind}")


def largest(kind: inspect.Type, items_max: int | None = None) -> Any:
    """The longest value that a field takes (in ASCII); `items_max` bounds lists further."""
    match kind:
        case inspect.IntType():
            upper = 2**63 - 1 if kind.le is None else kind.le
            return upper if kind.lt is None else kind.lt - 1
        case inspect.StrType():
            return "a" * (kind.max_length or 0)
        case inspect.BytesType():
            return b"a" * (kind.max_length or 0)
        case inspect.VarTupleType():
            count = kind.max_length or 0
            count = count if items_max is None else min(count, items_max)
            return [largest(kind.item_type, items_max)] * count
        case inspect.StructType():
            return elements(kind, [largest(field.type, items_max) for field in kind.fields])
    return good(kind)


def out_of_bounds(kind: inspect.Type) -> Iterator[Any]:
    """Values of the right type and the wrong size."""
    match kind:
        case inspect.IntType():
            yield from (-1, 2**64 - 1) if kind.ge == 0 or kind.gt == 0 else ()
            yield from [kind.gt] if kind.gt is not None else []
            yield from [kind.lt] if kind.lt is not None else []
            yield from [kind.le + 1] if kind.le is not None else []
        case inspect.StrType():
            yield "a" * (bound(kind) + 1)
        case inspect.BytesType():
            yield b"a" * (bound(kind) + 1)
            yield from [b"a" * (kind.min_length - 1)] if kind.min_length else []
        case inspect.VarTupleType():
            yield [good(kind.item_type)] * (bound(kind) + 1)
            yield from [[good(kind.item_type)] * (kind.min_length - 1)] if kind.min_length else []
            yield from ([bad] for bad in refused(kind.item_type))
        case inspect.StructType():
            for index, field in enumerate(kind.fields):
                fields = [good(each.type) for each in kind.fields]
                for bad in refused(field.type):
                    yield elements(kind, [*fields[:index], bad, *fields[index + 1 :]])
            yield good(kind)[:-1]
            yield [*good(kind), 0]


def refused(kind: inspect.Type) -> Iterator[Any]:
    """Values that a field must not take: other types, and other sizes."""
    mine = type(good(kind))
    others: Values = [None, True, 1.0, 7, "text", b"bytes", [], {}, msgspec.msgpack.Ext(5, b"")]
    yield from (value for value in others if type(value) is not mine)
    yield from out_of_bounds(kind)


def bound(kind: inspect.StrType | inspect.BytesType | inspect.VarTupleType) -> int:
    """The greatest length; every field on the wire has one."""
    assert kind.max_length is not None
    return kind.max_length


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value that a field takes, not too long to draw."""
    match kind:
        case inspect.IntType():
            return st.integers(good(kind), largest(kind))
        case inspect.BoolType():
            return st.booleans()
        case inspect.StrType():
            return st.text(max_size=min(bound(kind), 40))
        case inspect.BytesType():
            return st.binary(min_size=kind.min_length or 0, max_size=min(bound(kind), 80))
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type), min_size=kind.min_length or 0, max_size=4)
        case inspect.StructType():
            fields = st.tuples(*(values(field.type) for field in kind.fields))
            return fields.map(lambda each: elements(kind, list(each)))
    raise AssertionError(f"a kind of field that the tests do not know: {kind}")


def instances(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any struct of a class."""
    return values(struct_type(struct)).map(lambda array: msgspec.convert(array, struct))
