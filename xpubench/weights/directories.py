"""Directories that are written aside and renamed, so that no reader sees half of one."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_aside(target: Path, *, replace: bool) -> Iterator[Path]:
    """A new directory beside `target` that takes its place when the block ends well.

    A directory that lies there by then is replaced as a whole, after a crash it is still there; or, without
    `replace`, it stays, as another process was first and its copy is as good. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield aside
        os.chmod(aside, 0o755)
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
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)
