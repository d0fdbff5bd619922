"""Records as JSON: writing the present schema version, and reading every one."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xpubench.errors import UserError
from xpubench.record.record import Record
from xpubench.record.version_1 import from_version_1

SPACE = re.compile(r"\s*")
T = TypeVar("T")

# The conversion of each schema version's JSON to the present one. A new version adds an entry and keeps the
# others.
READERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: from_version_1, 2: lambda data: data}


def encode(record: Record) -> bytes:
    """The record as one line of JSON."""
    return msgspec.json.encode(record)


def decode(text: bytes | str) -> Record:
    """The record in a JSON text of any schema version so far; UserError when the text is not a record."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}") from error
    return _record_of(data)


def decode_all(text: bytes) -> Iterator[Record]:
    """The records in a text that holds any number of them, not necessarily one a line. UserError names the
    line at which something that is not a record begins."""
    decoder, place, whole = json.JSONDecoder(), 0, ""
    try:
        whole = text.decode().rstrip()
        while place < len(whole):
            data, end = decoder.raw_decode(whole, place)
            yield _record_of(data)
            space = SPACE.match(whole, end)
            place = space.end() if space else end
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else f"not JSON: {error}"
        line = f" (from line {1 + whole.count(chr(10), 0, place)})" if place else ""
        raise UserError(why + line) from error


def _record_of(data: Any) -> Record:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or version not in READERS:
        raise UserError(f"not a record of this tool (schema_version {version!r}; known: {sorted(READERS)})")
    try:
        return msgspec.convert(READERS[version](data), Record)
    except (msgspec.ValidationError, UserError) as error:
        raise UserError(f"not a whole record: {error}") from error


def read_record(path: Path) -> Record:
    """The record in the file `path`; UserError when it cannot be read or is not a record."""
    return _read(path, decode)


def read_records(path: Path) -> list[Record]:
    """The records in the file `path`, such as a baseline; UserError when it cannot be read or holds anything
    else."""
    return _read(path, lambda text: list(decode_all(text)))


def _read(path: Path, decoded: Callable[[bytes], T]) -> T:
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} is no record that can be read: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"{path} is {error}") from error
