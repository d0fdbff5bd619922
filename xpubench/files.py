"""Files and directories that are written whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4


def write_aside(target: Path, data: bytes) -> None:
    """Writes `data` beside `target` and renames it, so that no reader sees part of it; raises OSError. A
    symbolic link stays and its file is written; what is no regular file, such as a device or a pipe, is
    written to as it is."""
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    target = Path(os.path.realpath(target))
    temporary = _beside(target)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def directory_aside(target: Path, *, replace: bool) -> Iterator[Path]:
    """A new directory beside `target` that takes its place when the block ends without an error; raises
    OSError. With `replace`, an older directory is replaced at once; without, one that another process has
    made stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(target)
    aside.mkdir()
    try:
        yield aside
        try:
            os.rename(aside, target)
        except OSError:
            if not target.is_dir():
                raise
            if replace:
                _swap(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def files_aside(target: Path) -> Iterator[Path]:
    """A new hidden directory in the directory `target`, whose files move there when the block ends without an
    error. FileExistsError, with nothing moved, where one of that name is there; OSError as above."""
    aside = _beside(target / "new")
    aside.mkdir()
    moved: list[Path] = []
    try:
        yield aside
        files = sorted(aside.iterdir())
        if taken := [file.name for file in files if (target / file.name).exists()]:
            raise FileExistsError(errno.EEXIST, f"it holds a {taken[0]}")
        for file in files:
            moved.append(file.rename(target / file.name))
    except BaseException:
        for file in moved:
            file.unlink()
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def model_aside(target: Path) -> contextlib.AbstractContextManager[Path]:
    """A new directory for a model's files, which replaces `target` at the end; the files of one for the
    working directory, which has other files too, move there instead."""
    if target.exists() and target.samefile(Path()):
        return files_aside(target)
    return directory_aside(target, replace=True)


def _swap(new: Path, target: Path) -> None:
    old = _beside(target)
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _beside(target: Path) -> Path:
    """A new hidden path in the same directory. Names have at most 255 bytes, so the target's is cut."""
    return target.with_name(f".{target.name[:48]}.{uuid4().hex}")


def cache_directory() -> Path:
    """The directory of this tool's files that it can make again; RuntimeError where the user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xpubench"
