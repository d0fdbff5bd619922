"""The records of results directories, and what else lies there."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from xpubench.errors import UserError
from xpubench.record import Record, read_record

ROUND = "round-"


class Found(NamedTuple):
    """A record and the file that it is in."""

    path: Path
    record: Record


class LeftOut(NamedTuple):
    """A file that is no run of the report, and why."""

    path: Path
    reason: str


def records_in(directory: Path) -> Iterator[Found | LeftOut]:
    """Each file of the directory and of its rounds, one in memory at a time: the records, and what is none of
    ours.

    Sidecars of a record, which share its stem, and hidden files are passed over. UserError when the
    directory cannot be read.
    """
    yield from _files(directory)
    for one in rounds_of(directory):
        yield from _files(one)


def rounds_of(directory: Path) -> list[Path]:
    """The directories of the rounds of a suite or of several runtimes, in their order."""
    named = (path for path in directory.glob(f"{ROUND}*") if path.name.removeprefix(ROUND).isdecimal())
    found = [path for path in named if path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(ROUND)))


def _files(directory: Path) -> Iterator[Found | LeftOut]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        raise UserError(f"cannot read the results directory {directory}: {error.strerror}") from error
    stems = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    for name in names:
        path = directory / name
        if name.startswith(".") or _is_sidecar(name, stems):
            continue
        if not name.endswith(".json"):
            yield LeftOut(path, "not a record: its name does not end in .json")
            continue
        try:
            record = read_record(path)
            # Half letters, and numbers that no float can hold.
            msgspec.msgpack.encode(record)
        except UserError as error:
            yield LeftOut(path, str(error).removeprefix(f"{path} is "))
        except (UnicodeEncodeError, OverflowError, RecursionError) as error:
            yield LeftOut(path, f"not a record that can be written again: {error}")
        else:
            yield Found(path, record)


def _is_sidecar(name: str, stems: set[str]) -> bool:
    stem, dot, rest = name.partition(".")
    return bool(dot) and stem in stems and rest != "json"


def nothing_found(directories: list[Path], left_out: list[LeftOut]) -> UserError:
    """The error for directories without any record."""
    named = ", ".join(map(str, directories))
    others = f" ({len(left_out)} other files)" if left_out else ""
    return UserError(f"no records in {named}{others}; xpubench generate --results-dir DIR writes them")
