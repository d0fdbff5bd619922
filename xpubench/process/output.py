"""Keeps standard output for this program; what libraries print goes to standard error or nowhere."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from xpubench.errors import UserError


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
