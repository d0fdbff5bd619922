"""Files and directories that are written whole or not at all."""

import contextlib
import errno
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
    process has put there in the meantime is kept."""
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
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _beside(target: Path) -> Path:
    """A new hidden path in the target's directory. File names have at most 255 bytes, so the target's name
    is shortened in it."""
    return target.with_name(f".{target.name[:48]}.{uuid4().hex}")


def expanded(name: str | Path) -> Path:
    """The path of that name, a `~` at its beginning replaced by the home that it names. A name keeps a `~`
    without a home, where `Path.expanduser` raises, and is then that of a file that is not there."""
    return Path(os.path.expanduser(name))


def cache_directory() -> Path:
    """The cache directory of this tool, whose files it can make again; RuntimeError where the user has no
    home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xpubench"
