"""The directory that holds the records."""

import tempfile
from pathlib import Path

import msgspec

from xpubench.errors import UserError
from xpubench.files import write_aside
from xpubench.record import Record, encode


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
