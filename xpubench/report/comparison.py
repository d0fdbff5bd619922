"""A comparison in words: a row for each run, and notes on what the rows do not tell."""

from xpubench.compare.runs import Comparisons, RunComparison
from xpubench.report.text import NONE, mean_kl_text

COLUMNS = ("run", "verdict", "first token, ratio", "next token, ratio", "memory, ratio", "accuracy, points")


def row_texts(run: RunComparison) -> list[str]:
    """The text of each of `COLUMNS` for a run."""
    points = run.accuracy.difference_points if run.accuracy else None
    return [
        run.title,
        run.verdict,
        run.first_token.text if run.first_token else NONE,
        run.next_token.text if run.next_token else NONE,
        NONE if run.memory is None else f"{run.memory:.3f}",
        NONE if points is None else f"{points:+.2f}",
    ]


def notes(found: Comparisons) -> list[str]:
    """What the table does not say."""
    lines = [f"{run.verdict}: {run.reason}" for run in found.runs]
    if len(found.runs) > 1:
        lines = [f"{run.title}: {run.reason}" for run in found.runs if run.verdict != "same"]
    for run in found.runs:
        if run.differs:
            lines.append(f"differs in {'; '.join(run.differs)}" + _of(run, found))
        if run.top1_agreement is not None:
            lines.append(
                f"divergence of the new run from its reference: top-1 agreement {run.top1_agreement:.1%}, "
                + mean_kl_text(run.mean_kl)
                + _of(run, found)
            )
    lines += [f"only in the base: {title}" for title in found.only_base]
    lines += [f"only in the new: {title}" for title in found.only_new]
    return lines + [f"left out: {one}" for one in found.left_out]


def _of(run: RunComparison, found: Comparisons) -> str:
    return f" ({run.title})" if len(found.runs) > 1 else ""
