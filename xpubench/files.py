"""Files and directories that are written whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_aside(target: Path, data: bytes) -> None:
    """Writes `data` beside `target` and renames it, so that no reader sees part of it; raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def directory_aside(target: Path, *, replace: bool) -> Iterator[Path]:
    """A new directory beside `target` that takes its place when the block ends without an error; raises
    OSError. With `replace`, it replaces an older directory at once; without, one that another process has
    made stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target)))
    try:
        yield aside
        os.chmod(aside, 0o777 & ~_umask())
        try:
            os.rename(aside, target)
        except OSError:
            if not target.is_dir():
                raise
            if replace:
                _swap(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target)))
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _prefix(target: Path) -> str:
    """The start of the name of a temporary file or directory, cut as names have at most 255 bytes."""
    return f".{target.name[:48]}."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
