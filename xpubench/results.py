"""Results directories: records as they are written, and as they are found with what else lies there."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from xpubench.errors import UserError
from xpubench.files import write_aside
from xpubench.record import Record, encode, read_record

# A round of a suite has its own directory below the results directory, of this name and its number.
ROUND = "round-"


class ResultsDirectory:
    """A directory with one JSON file a run, named by the run's id, and sidecar files of the same stem."""

    def __init__(self, path: Path) -> None:
        """Makes the directory and proves that it can be written; UserError when it cannot."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise UserError(
                f"cannot write to the results directory {path}: {error.strerror}; "
                "choose another with --results-dir"
            ) from error

    def record_path(self, record_id: str) -> Path:
        """Where the record of that id lies."""
        return self.path / f"{record_id}.json"

    def tasks_path(self, record_id: str) -> Path:
        """Where the ids of the tasks of a group lie, which is asked for under one id and has no record."""
        return self.path / f".{record_id}.tasks.json"

    def tasks_of(self, record_id: str) -> list[str]:
        """The ids of the records of a group's tasks; none where it is no group or was not done whole."""
        try:
            return msgspec.json.decode(self.tasks_path(record_id).read_bytes(), type=list[str])
        except (OSError, msgspec.DecodeError):
            return []

    def stamp_of(self, record_id: str) -> tuple[int, int] | None:
        """Which file holds a record, or the list of a group's tasks: another one once it is written anew,
        None where there is none."""
        for path in (self.record_path(record_id), self.tasks_path(record_id)):
            if path.exists():
                found = path.stat()
                return found.st_ino, found.st_mtime_ns
        return None

    def write_tasks(self, record_id: str, ids: list[str]) -> None:
        """Notes that all tasks of a group have their records, of which none is the group's own."""
        self.write_file(self.tasks_path(record_id).name, msgspec.json.encode(ids))
        self.record_path(record_id).unlink(missing_ok=True)

    def write(self, record: Record) -> Path:
        """Writes the record for people to read as well, whole or not at all."""
        text = msgspec.json.format(encode(record), indent=1)
        return self.write_file(f"{record.id}.json", text)

    def write_file(self, name: str, data: bytes) -> Path:
        """Writes `data` aside and renames it to `name`, so that no reader sees half of it.

        UserError when it cannot be written, such as on a full disk.
        """
        target = self.path / name
        try:
            write_aside(target, data)
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror}") from error
        return target


class Found(NamedTuple):
    """A record and the file that it is in."""

    path: Path
    record: Record


def records_in(directories: Sequence[Path], left_out: list[tuple[str, str]]) -> Iterator[Found]:
    """Each record of the directories and of their rounds, one in memory at a time. The path of each file that
    is no record is appended to `left_out` with the reason; sidecars of a record, which share its stem, and
    hidden files are passed over.

    UserError when a directory cannot be read, and at the end when no record was found.
    """
    places = [place for path in dict.fromkeys(directories) for place in (path, *rounds_of(path))]
    empty = True
    for found in chain.from_iterable(_files(place, left_out) for place in places):
        empty = False
        yield found
    if empty:
        named = ", ".join(map(str, directories)) + (f" ({len(left_out)} other files)" if left_out else "")
        raise UserError(f"no records in {named}; xpubench generate --results-dir DIR writes them")


def writable(record: Record, path: Path) -> Record:
    """The record that was read from `path`; UserError for one with half of a surrogate pair or a number that
    no float can hold, which nothing could write again."""
    try:
        msgspec.msgpack.encode(record)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not a record that can be written again: {error}") from error
    return record


def rounds_of(directory: Path) -> list[Path]:
    """The directories of the rounds of a suite or of several runtimes, in their order."""
    named = (path for path in directory.glob(f"{ROUND}*") if path.name.removeprefix(ROUND).isdecimal())
    found = [path for path in named if path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(ROUND)))


def _files(directory: Path, left_out: list[tuple[str, str]]) -> Iterator[Found]:
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
            left_out.append((str(path), "not a record: its name does not end in .json"))
            continue
        try:
            yield Found(path, writable(read_record(path), path))
        except UserError as error:
            left_out.append((str(path), str(error).removeprefix(f"{path} is ")))


def _is_sidecar(name: str, stems: set[str]) -> bool:
    stem, dot, rest = name.partition(".")
    return bool(dot) and stem in stems and rest != "json"
