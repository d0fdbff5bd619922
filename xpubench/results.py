"""Results directories: how records are written to them and found in them."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from xpubench.errors import UserError, shortened
from xpubench.files import write_aside
from xpubench.record import Record, encode, read_record

# Each round of a suite has its own directory in the results directory, named by this and its number.
ROUND = "round-"
# The page of a results directory, which lies in it.
PAGE = "report.html"
# Where a suite keeps its workers' logs.
LOGS = "logs"


class WriteError(UserError):
    """A file that cannot be written to a results directory, which says nothing about the run. `record` is the
    one that is lost with it, None where it is another file."""

    record: Record | None = None


class ResultsDirectory:
    """A directory with one JSON file a run, named by the run's id, and sidecar files of the same stem."""

    def __init__(self, path: Path) -> None:
        """Makes the directory; WriteError when nothing can be written to it."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            why = f"cannot write to the results directory {path}: {error.strerror}"
            raise WriteError(f"{why}; choose another with --results-dir") from error

    def record_path(self, record_id: str) -> Path:
        """The file of the record of that id."""
        return self.path / f"{record_id}.json"

    def tasks_path(self, record_id: str) -> Path:
        """The file with the ids of the tasks of a group, which has one id but no record of its own."""
        return self.path / f".{record_id}.tasks.json"

    def tasks_of(self, record_id: str) -> list[str]:
        """The ids of the records of a group's tasks; empty where it is no group, or was not completed."""
        try:
            return msgspec.json.decode(self.tasks_path(record_id).read_bytes(), type=list[str])
        except (OSError, msgspec.DecodeError):
            return []

    def stamp_of(self, record_id: str) -> tuple[int, int] | None:
        """Inode and modification time of the file of a record, or of a group's tasks, by which a rewritten
        file is recognised; None where there is no file."""
        paths = (self.record_path(record_id), self.tasks_path(record_id))
        found = next((path.stat() for path in paths if path.exists()), None)
        return (found.st_ino, found.st_mtime_ns) if found else None

    def write_tasks(self, record_id: str, ids: list[str]) -> None:
        """Notes that all tasks of a group have records, and removes an older record of the group."""
        self.write_file(self.tasks_path(record_id).name, msgspec.json.encode(ids))
        self.record_path(record_id).unlink(missing_ok=True)

    def write(self, record: Record) -> Path:
        """Writes the record as indented JSON, whole or not at all; WriteError with the record when that
        fails."""
        try:
            return self.write_file(f"{record.id}.json", msgspec.json.format(encode(record), indent=1))
        except WriteError as error:
            error.record = record
            raise

    def write_file(self, name: str, data: bytes) -> Path:
        """Writes `data` to the file `name`, whole or not at all; WriteError when that fails."""
        target = self.path / name
        try:
            write_aside(target, data)
        except OSError as error:
            raise WriteError(f"cannot write {target}: {error.strerror}") from error
        return target


class Found(NamedTuple):
    """A record and the file that it is in."""

    path: Path
    record: Record


def records_in(
    directories: Sequence[Path], left_out: list[tuple[str, str]], *, below: bool = False
) -> Iterator[Found]:
    """Each record of the directories and of their rounds, one in memory at a time; with `below` also those
    of all directories below them. The path of each other file is appended to `left_out` with the reason.
    Sidecars of a record, which share its stem, logs, the page and hidden files are skipped.

    UserError when a directory cannot be read, and at the end when no record was found.
    """
    empty, others = True, 0
    for path in dict.fromkeys(directories):
        named = (path, *rounds_of(path))
        more = [place for place in directories_below(path) if place not in named] if below else []
        for place in (*named, *more):
            own: list[tuple[str, str]] = []
            found = None
            for found in _files(place, own):
                empty = False
                yield found
            others += len(own)
            # Directories below that hold no records are no results directories.
            if place in named or found is not None:
                left_out += own
    if empty:
        names = ", ".join(map(str, directories))
        files = f" ({others} other files)" if others else ""
        raise UserError(f"no records in {names}{files}; xpubench generate --results-dir DIR writes them")


def writable(record: Record, path: Path) -> Record:
    """Returns the record that was read from `path`. UserError where it cannot be written as JSON again,
    because a text in it has half of a surrogate pair or a number is too large for a float."""
    try:
        msgspec.msgpack.encode(record)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not a record that can be written again: {error}") from error
    return record


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """UserError where the system refuses what the block asks of the path, such as one that is too long or
    that lies in a directory that may not be entered."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {shortened(path)}: {error.strerror}") from error


def rounds_of(directory: Path) -> list[Path]:
    """The directories of the rounds of a suite or of several runtimes, in their order; UserError where the
    directory cannot be looked for."""
    with readable(directory):
        below = list(directory.glob(f"{ROUND}*/"))
    named = [path for path in below if path.name.removeprefix(ROUND).isdecimal()]
    return sorted(named, key=lambda path: int(path.name.removeprefix(ROUND)))


def directories_below(directory: Path) -> list[Path]:
    """The directory and all directories below it, with the rounds of each in their order. Hidden
    directories and those of logs are left out."""
    rounds = rounds_of(directory)
    named = [path for path in directory.glob("*/") if not path.name.startswith(".") and path.name != LOGS]
    others = sorted(path for path in named if path not in rounds and not path.is_symlink())
    return [one for path in (*rounds, *others) for one in (path, *directories_below(path))]


def _files(directory: Path, left_out: list[tuple[str, str]]) -> Iterator[Found]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        named = shortened(directory)
        raise UserError(f"cannot read the results directory {named}: {error.strerror}") from error
    stems = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    for name in names:
        path = directory / name
        stem, dot, rest = name.partition(".")
        if not stem or name == PAGE or (dot and stem in stems and rest != "json"):
            continue
        if not name.endswith(".json"):
            left_out.append((str(path), "not a record: its name does not end in .json"))
            continue
        try:
            yield Found(path, writable(read_record(path), path))
        except UserError as error:
            left_out.append((str(path), str(error).removeprefix(f"{path} is ")))
