"""A comparison in words: a row for each run, and notes on what the rows do not tell."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from xpubench.compare.figures import FigureName
from xpubench.compare.judgement import Judgement
from xpubench.compare.run import RunComparison
from xpubench.compare.runs import Comparisons
from xpubench.measure.sequential import ALPHA
from xpubench.report.text import NONE, mean_kl_text, number

COLUMNS = (
    *("run", "verdict", "first token, ratio", "prompt, tokens/s", "next token, ratio", "memory, ratio"),
    *("accuracy, points", "would show", "decides at"),
)
PARTS_COLUMN = "parts that changed"
# The columns of words, which are aligned to the left.
LEFT_COLUMNS = ("run", "verdict", PARTS_COLUMN)
MOST_DIFFERENCES = 4
CHANGED = ("slower", "faster", "worse", "better")


def comparison_table(runs: Sequence[RunComparison]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and a row of texts for each run. Beside the verdict stand the parts of the
    token's time that changed, in a column that is there where a run tells them."""
    columns, rows = list(COLUMNS), [_row_texts(run) for run in runs]
    if any(run.parts is not None for run in runs):
        columns.insert(2, PARTS_COLUMN)
        for run, row in zip(runs, rows, strict=True):
            row.insert(2, NONE if run.parts is None else run.parts.message)
    return columns, rows


def _row_texts(run: RunComparison) -> list[str]:
    """The text of each of `COLUMNS` for a run. `would show` is the smallest change of the primary figure that
    these data would show, `decides at` the rounds or items from which it would probably have a verdict."""
    primary, accuracy = run.primary, run.accuracy
    return [
        *(run.title, run.verdict),
        *(_ratio(run, "first_token"), _prompt_rates(run), _ratio(run, "next_token")),
        _ratio(run, "peak_device", "peak_host"),
        NONE if accuracy is None else accuracy.accuracy.text,
        NONE if primary is None else detectable_text(primary) or NONE,
        NONE if primary is None else needed_text(primary) or NONE,
    ]


def detectable_text(judged: Judgement) -> str | None:
    """The smallest change that the data of a judgement would show, None where it is not known."""
    if judged.detectable is None:
        return None
    return f"{judged.detectable:.1%}" if judged.unit == "ratio" else f"{judged.detectable:.2f} points"


def needed_text(judged: Judgement) -> str | None:
    """The rounds or items from which an inconclusive judgement would probably be a verdict, None where there
    is one or the number is not known."""
    if judged.to_decide is None:
        return None
    return f"{judged.to_decide} {'rounds' if judged.unit == 'ratio' else 'items'}"


def power(run: RunComparison) -> Iterable[str]:
    """A line on what an inconclusive run would show, and what would decide it, where that is known."""
    if run.verdict == "inconclusive" and run.primary is not None:
        texts = {"would show": detectable_text(run.primary), "decides at": needed_text(run.primary)}
        if told := [f"{name} {text}" for name, text in texts.items() if text]:
            yield "; ".join(told)


def nothing_compared(found: Comparisons) -> str | None:
    """Why no run was compared; None where one was, or is missing."""
    if not found.runs:
        return "no run is in both"
    failing = all(run.verdict == "failing in both" for run in found.runs)
    return "every run that is in both fails in both" if failing else None


def notes(found: Comparisons) -> list[str]:
    """Lines on what the table does not say: first what gave the verdicts, then what changed beside them."""
    several = len(found.runs) > 1
    lines = [
        f"{run.title}: {run.reason}" if several else f"{run.verdict}: {run.reason}"
        for run in found.runs
        if run.verdict != "same" or not several
    ]
    told: defaultdict[str, list[str]] = defaultdict(list)
    for run in found.runs:
        for line in beside(run):
            told[line].append(run.title)
    for line, titles in told.items():
        which = f" ({titles[0] if len(titles) == 1 else f'{len(titles)} runs'})" if several else ""
        lines.append(line + which)
    lines += _chance(found)
    if reason := nothing_compared(found):
        lines.append(f"not comparable: {reason}")
    lines += [f"only in the base: {title}" for title in found.only_base]
    lines += [f"only in the new: {title}" for title in found.only_new]
    return lines + [f"left out: {one}" for one in found.left_out]


def _prompt_rates(run: RunComparison) -> str:
    rates = run.prompt_tokens_per_s
    return NONE if rates is None else " → ".join(number(rate, 1) for rate in rates)


def _ratio(run: RunComparison, *names: FigureName) -> str:
    """The ratio of the first of these figures that was compared."""
    return next((run.figures[name].text for name in names if name in run.figures), NONE)


def beside(run: RunComparison, most: int | None = MOST_DIFFERENCES) -> Iterable[str]:
    """Lines on what changed or differs beside the verdict of a run, with at most so many facts of the
    environments, by default few enough for a terminal."""
    if run.beyond:
        yield f"beyond their limits: {'; '.join(run.beyond)}"
    if run.differs:
        yield f"differs in {'; '.join(run.differs)}"
    if run.environment:
        shown = [f"{one.name} {one.a} → {one.b}" for one in run.environment[:most]]
        more = len(run.environment) - len(shown)
        yield f"other environment: {'; '.join(shown)}{f' and {more} more' if more else ''}"
    if run.top1_agreement is not None:
        agreement = f"top-1 agreement {run.top1_agreement:.1%}, {mean_kl_text(run.mean_kl)}"
        yield f"divergence of the new run from its reference: {agreement}"
    yield from (f"warning, {one}" for one in run.warnings)


def _chance(found: Comparisons) -> list[str]:
    """What the number of runs says about the changes among them."""
    changed = [run for run in found.runs if run.adjusted_p is not None and run.verdict in CHANGED]
    if found.judged < 2 or not changed:
        return []
    sure = [run.title for run in changed if (run.adjusted_p or 0.0) <= ALPHA]
    kept = f"left after adjustment for their number (Benjamini-Hochberg): {len(sure)}"
    chance = f"where chance gives about {found.false_by_chance:.1f}"
    return [
        f"{len(changed)} of {found.judged} runs changed, {chance}; {kept}",
        *(f"left after adjustment: {title}" for title in sure),
    ]
