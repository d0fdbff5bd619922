"""`make docs`: writes docs/record.md, the fields of a record, from the types of `xpubench.record`."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as types

from xpubench.record import SCHEMA_VERSION, Record
from xpubench.runtimes.registry import OPTIONS

DOCS = Path(__file__).parent
PAGE = DOCS / "record.md"
EXAMPLE = DOCS / "record-example.json"

HEAD = f"""\
# The fields of a record

`make docs` writes this page from the types in the code, and a test fails when the two differ: change the
types and their docstrings, not this page.

A run is one JSON file in the results directory, named by the run's id. This is schema version
{SCHEMA_VERSION}. Records of earlier versions are still read, and converted on the way. In Python:

    from pathlib import Path
    from xpubench.record import read_record

    record = read_record(Path("results/ID.json"))
    print(record.latency.next_token_ms.median)

Each table lists the fields of one JSON object in their order, and the value of a field that is left out.
Where a field can hold several kinds of objects, the first field in the object's table, such as `kind`, says
which one it is. Python's `None` is JSON's `null`. The unit of a number is part of its field's name: `_ns`,
`_ms`, `_s`, `_bytes`, `_gb_per_s` (10^9 bytes a second).

## An example

A short run on a busy machine. Fields that have their default are left out, and so are some package
versions, the samples of the bandwidth, and most of the warnings; numbers are rounded.

```json
{EXAMPLE.read_text()}```

## The fields
"""

# The types of the runtimes that people cannot choose, which serve tests.
SHOWN = {kind for one in OPTIONS.values() if one.listed for kind in (one, one.description)}
HIDDEN = {kind for one in OPTIONS.values() for kind in (one, one.description)} - SHOWN
# Of each plain type, one value and several.
WORDS: dict[type[types.Type], tuple[str, str]] = {
    types.StrType: ("text", "texts"),
    types.IntType: ("whole number", "whole numbers"),
    types.FloatType: ("number", "numbers"),
    types.NoneType: ("null", "nulls"),
    types.AnyType: ("any JSON", "any JSON values"),
}


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(struct, paths) for struct, paths in _objects())])


def _objects() -> list[tuple[types.StructType, list[str]]]:
    """The objects of a record in the order in which it has them, each with the paths of the fields that hold
    it. Before an object stands the one whose fields it begins with."""
    found: dict[type, tuple[types.StructType, dict[str, None]]] = {}

    def visit(struct: types.StructType, path: str | None) -> None:
        if (base := _base(struct.cls)) is not None:
            visit(_struct(base), None)
        _, paths = found.setdefault(struct.cls, (struct, {}))
        if path is not None:
            paths[path] = None
        for field in struct.fields:
            for inner in _structs(field.type):
                visit(inner, None if path is None else f"{path}.{field.encode_name}".lstrip("."))

    visit(_struct(Record), "")
    return [(struct, list(paths)) for struct, paths in found.values()]


def _struct(kind: type) -> types.StructType:
    found = types.type_info(kind)
    assert isinstance(found, types.StructType)
    return found


def _base(kind: Any) -> type | None:
    """The nearest type from which this one inherits fields."""
    bases = kind.__mro__[1 : kind.__mro__.index(msgspec.Struct)]
    return next((base for base in bases if base.__struct_fields__), None)


def _structs(kind: types.Type) -> Iterator[types.StructType]:
    """The objects in a type, but for those of runtimes that serve tests alone."""
    if isinstance(kind, types.StructType):
        if kind.cls not in HIDDEN:
            yield kind
    elif isinstance(kind, types.UnionType):
        for one in kind.types:
            yield from _structs(one)
    elif isinstance(kind, types.ListType):
        yield from _structs(kind.item_type)
    elif isinstance(kind, types.DictType):
        yield from _structs(kind.value_type)


def _section(struct: types.StructType, paths: list[str]) -> str:
    where = f"In {_listed([f'`{path}`' for path in paths], 'and')}." if any(paths) else ""
    base = _base(struct.cls)
    before = () if base is None else [field.name for field in _struct(base).fields]
    own = [field for field in struct.fields if field.name not in before]
    rows = [f"| `{struct.tag_field}` | `{_json(struct.tag)}` | |"] if struct.tag_field and paths else []
    rows += [f"| `{field.encode_name}` | {_words(field.type)} | {_default(field)} |" for field in own]
    table = "\n".join(["| field | value | default |", "|---|---|---|", *rows])
    first = f"After `{struct.tag_field}` come" if struct.tag_field else "First come"
    inherited = "" if base is None else f"{first} the fields of {_link(base)}."
    parts = [f"### {struct.cls.__name__}", where, _docstring(struct.cls), inherited, table]
    return "\n\n".join(part for part in parts if part) + "\n"


def _docstring(struct: type) -> str:
    text = inspect.cleandoc(struct.__dict__.get("__doc__") or "")
    assert text, f"{struct.__name__} has no docstring"
    return text


def _words(kind: types.Type, *, several: bool = False) -> str:
    """A type in plain words, for one value or for several."""
    return _listed(_kinds(kind, several), "or")


def _kinds(kind: types.Type, several: bool) -> list[str]:
    """The kinds of values of a type, null last."""
    if isinstance(kind, types.UnionType):
        ordered = sorted(kind.types, key=lambda one: isinstance(one, types.NoneType))
        return [word for one in ordered for word in _kinds(one, several)]
    if isinstance(kind, types.StructType):
        return [] if kind.cls in HIDDEN else [_link(kind.cls)]
    if isinstance(kind, types.LiteralType):
        return [f"`{_json(value)}`" for value in kind.values]
    if isinstance(kind, types.BoolType):
        return ["true", "false"]
    if isinstance(kind, types.ListType | types.VarTupleType):
        return [f"{'lists' if several else 'list'} of {_words(kind.item_type, several=True)}"]
    if isinstance(kind, types.TupleType):
        return [f"list of {len(kind.item_types)} {_words(kind.item_types[0], several=True)}"]
    if isinstance(kind, types.DictType):
        return [
            f"{'objects' if several else 'object'} whose values are {_words(kind.value_type, several=True)}"
        ]
    return [WORDS[type(kind)][several]]


def _listed(words: list[str], last: str) -> str:
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end


def _link(kind: type) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _default(field: types.Field) -> str:
    if field.required:
        return "always there"
    value: Any = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return f"{_link(type(value))} with its defaults"
    return f"`{_json(value)}`"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
