"""A comparison in words: a row for each run, and notes on what the rows do not tell."""

from xpubench.compare.runs import Comparisons, RunComparison
from xpubench.report.text import NONE, mean_kl_text

COLUMNS = ("run", "verdict", "first token, ratio", "next token, ratio", "memory, ratio", "accuracy, points")


def row_texts(run: RunComparison) -> list[str]:
    """The text of each of `COLUMNS` for a run."""
    points = run.accuracy.difference_points if run.accuracy else None
    return [
        *(run.title, run.verdict),
        *(ratio.text if ratio else NONE for ratio in (run.first_token, run.next_token)),
        NONE if run.memory is None else f"{run.memory:.3f}",
        NONE if points is None else f"{points:+.2f}",
    ]


def notes(found: Comparisons) -> list[str]:
    """Lines on what the table does not say."""
    several = len(found.runs) > 1
    if several:
        lines = [f"{run.title}: {run.reason}" for run in found.runs if run.verdict != "same"]
    else:
        lines = [f"{run.verdict}: {run.reason}" for run in found.runs]
    for run in found.runs:
        which = f" ({run.title})" if several else ""
        if run.differs:
            lines.append(f"differs in {'; '.join(run.differs)}{which}")
        if run.top1_agreement is not None:
            agreement = f"top-1 agreement {run.top1_agreement:.1%}, {mean_kl_text(run.mean_kl)}"
            lines.append(f"divergence of the new run from its reference: {agreement}{which}")
    lines += [f"only in the base: {title}" for title in found.only_base]
    lines += [f"only in the new: {title}" for title in found.only_new]
    return lines + [f"left out: {one}" for one in found.left_out]
