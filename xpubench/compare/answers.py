"""The answers to the check prompts beside two records: whether their tokens are the same."""

import zipfile
from pathlib import Path
from typing import Any

import msgspec

from xpubench.compare.run import RunComparison
from xpubench.errors import UserError
from xpubench.results import readable

# What a check file is called beside `ID.json`; `xpubench.accuracy.divergence.Trace` says what it holds.
SUFFIX = ".check.npz"
ARRAYS = ("prompt_ids", "tokens", "top_ids", "top_logprobs")


def with_answers(run: RunComparison, base: Path, new: Path) -> RunComparison:
    """A comparison of the records in two files, with what their check files say of the tokens."""
    if not run.figures:
        return run
    try:
        told = other_answers(base, new)
    except UserError as error:
        return msgspec.structs.replace(run, warnings=[*run.warnings, str(error)])
    return run if told is None else msgspec.structs.replace(run, beyond=[*run.beyond, told])


def other_answers(base: Path, new: Path) -> str | None:
    """How the answers beside two records differ in their tokens; None where these are the same, where a
    record has none beside it, or where the prompts are others. UserError for a file that is not whole or
    cannot be read."""
    files = [path.with_name(path.stem + SUFFIX) for path in (base, new)]
    for file in files:
        with readable(file):
            if not file.is_file():
                return None
    import numpy as np

    one, other = map(_read, files)
    same_prompts = np.array_equal(one["prompt_ids"], other["prompt_ids"])
    if not same_prompts or one["tokens"].shape != other["tokens"].shape:
        return None
    different = one["tokens"] != other["tokens"]
    rows = np.flatnonzero(different.any(axis=1))
    if not rows.size:
        return None
    places = different[rows].argmax(axis=1)
    count, steps = different.shape
    return (
        f"other tokens on {rows.size} of {count} check prompts, from token {places.min() + 1} of {steps}, "
        f"with a KL divergence of {_mean_kl(one, other, rows, places):.2g} nats up to where they part"
    )


def _read(file: Path) -> dict[str, Any]:
    # NumPy's import takes longer than the comparison of most records.
    import numpy as np

    try:
        with np.load(file) as arrays:
            found = {name: arrays[name] for name in ARRAYS}
        prompts, steps = found["tokens"].shape
        if {found[name].shape[:2] for name in ("top_ids", "top_logprobs")} != {(prompts, steps)}:
            raise ValueError("its arrays do not belong together")
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file} is not a whole check file, so that its tokens are not compared: {error}"
        ) from error
    return found


def _mean_kl(one: dict[str, Any], other: dict[str, Any], rows: Any, places: Any) -> float:
    """The mean of KL(base || new) over the positions up to the first other token of each of the `rows`, over
    the tokens that both sides kept and one bucket for all others: a lower bound."""
    import numpy as np

    found = []
    for row, place in zip(rows, places, strict=True):
        for at in range(place + 1):
            _, left, right = np.intersect1d(
                one["top_ids"][row, at], other["top_ids"][row, at], assume_unique=True, return_indices=True
            )
            log_p = one["top_logprobs"][row, at][left].astype(np.float64)
            log_q = other["top_logprobs"][row, at][right].astype(np.float64)
            p, q = np.exp(log_p), np.exp(log_q)
            rest_p, rest_q = (max(1 - side.sum(), 1e-9) for side in (p, q))
            found.append((p * (log_p - log_q)).sum() + rest_p * np.log(rest_p / rest_q))
    return max(0.0, float(np.mean(found)))
