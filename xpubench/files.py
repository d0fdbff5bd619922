"""Files and directories that are written whole or not at all."""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4


def write_aside(target: Path, data: bytes) -> None:
    """Writes `data` to a temporary file beside `target` and renames it, so that no reader sees a part of
    it; raises OSError. A symbolic link is kept, and the file that it points at is replaced. A target
    that is no regular file, such as a device or a pipe, is opened and written to."""
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
    OSError. With `replace`, an existing directory is replaced. Without it, a directory that another
    process has put there in the meantime is kept. New directories for `target` that processes left when
    they were killed are removed first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(target)
    aside = _beside(target)
    # Under this name, no other process takes it for one that was left before it is locked.
    fresh = aside.with_name(f"{aside.name}.new")
    fresh.mkdir()
    try:
        with _locked(fresh):
            os.rename(fresh, aside)
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
    """A new hidden directory inside `target`, whose files move to `target` when the block ends without an
    error. Raises FileExistsError, with nothing moved, where `target` already has a file of such a name,
    and other OSErrors as `directory_aside` does."""
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
    """A new directory for a model's files, which replaces `target` at the end. Where `target` is the
    working directory, which has other files too, the model's files move there instead."""
    if target.exists() and target.samefile(Path()):
        return files_aside(target)
    return directory_aside(target, replace=True)


def _swap(new: Path, target: Path) -> None:
    old = _beside(target)
    with _locked(target):
        os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old)


def _remove_left(target: Path) -> None:
    """Removes the hidden directories for `target` that no living process has locked."""
    for left in target.parent.glob(glob.escape(_hidden(target)) + "?" * len(uuid4().hex)):
        with contextlib.suppress(OSError), _opened(left) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Locks a directory, where its file system has such locks and no other process holds this one, until the
    block or the process ends. Renaming keeps the lock."""
    with _opened(directory) as held:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """The file descriptor of a directory."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield held
    finally:
        os.close(held)


def _hidden(target: Path) -> str:
    """The beginning of the names of hidden paths. File names have at most 255 bytes, so the target's name is
    shortened in it."""
    return f".{target.name[:48]}."


def _beside(target: Path) -> Path:
    """A new hidden path in the target's directory."""
    return target.with_name(_hidden(target) + uuid4().hex)


def expanded(name: str | Path) -> Path:
    """The path of that name, a `~` at its beginning replaced by the home that it names. A name keeps a `~`
    without a home, where `Path.expanduser` raises, and is then that of a file that is not there."""
    return Path(os.path.expanduser(name))


def cache_directory() -> Path:
    """The cache directory of this tool, whose files it can make again; RuntimeError where the user has no
    home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xpubench"
