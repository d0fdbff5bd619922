"""Keeps standard output for this program; what libraries print goes to standard error or nowhere."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from xpubench.errors import UserError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDERR = 2


class DroppingFile(io.FileIO):
    """A file that drops what the system does not let it write."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


@contextlib.contextmanager
def dropping_stderr() -> Iterator[None]:
    """Inside, what cannot be written to standard error is dropped. A progress line whose reader is gone, or
    whose disk is full, must not end the measurement that it tells of."""
    if sys.stderr is None:
        yield
        return
    stream = io.TextIOWrapper(
        io.BufferedWriter(DroppingFile(STDERR, "w", closefd=False)),
        encoding=sys.stderr.encoding,
        errors=sys.stderr.errors,
        line_buffering=True,
    )
    with contextlib.redirect_stderr(stream):
        yield
        stream.flush()


def quiet() -> None:
    """Keeps the libraries' own progress bars and advice out of the output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("AR_LOG_LEVEL", "ERROR")
    # transformers imports torchao, which warns about each of its extensions that does not load.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


@contextlib.contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Yields the real standard output; inside, what libraries print there goes to standard error."""
    if sys.stdout is None:
        raise UserError("standard output is closed; redirect it to a file or to /dev/null")
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(os.dup(kept), "w", encoding="utf-8") as out, contextlib.redirect_stdout(sys.stderr):
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
