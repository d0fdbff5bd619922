"""What moving from one stack to another brings, counted in models: the summary of a comparison of stacks."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from xpubench.compare.row import RunRow
from xpubench.compare.run import RunComparison, RunVerdict

# A model with several pairs of runs counts once, by the first of these verdicts that one of them has.
WORST_FIRST: tuple[RunVerdict, ...] = (
    *("newly failing", "slower", "worse", "inconclusive", "not comparable", "failing in both"),
    *("same", "faster", "better", "no longer failing"),
)
WELL: frozenset[RunVerdict] = frozenset({"same", "faster", "better"})

Compared = tuple[str, RunRow, RunRow, RunComparison]


class ModelCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Models by the worst verdict of their runs: `well` are same or better, `worse` those with a change
    for the worse, `failing` fail now and did not before, `mended` run now and failed before, and `unknown`
    could not be compared."""

    models: int = 0
    well: int = 0
    worse: int = 0
    inconclusive: int = 0
    failing: int = 0
    mended: int = 0
    unknown: int = 0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A move between two stacks in one precision class: the models by their next token latency, the
    largest ratio new / base of those that are slower, the models that are well and yet slower to the first
    token, the models by their accuracy, and the number of A's models that have no run of the same work on
    B."""

    a: str
    b: str
    precision: str
    latency: ModelCounts
    worst: float | None
    slower_to_first: int
    accuracy: ModelCounts
    not_run: int

    @property
    def text(self) -> str:
        """The move in one line."""
        parts = [*_latency_parts(self), _accuracy_part(self.accuracy)]
        if self.not_run:
            parts.append(f"{self.not_run} more not run on the latter")
        return f"moving from {self.a} to {self.b}, {self.precision}: {', '.join(parts)}"


def moves(pairs: Sequence[Compared], only_a: Sequence[tuple[str, RunRow]]) -> list[Move]:
    """A move for each two stacks and precision class that have a pair. `only_a` are models and runs that have
    none."""
    grouped: defaultdict[tuple[str, str, str], list[Compared]] = defaultdict(list)
    for pair in pairs:
        grouped[*_names(pair[1], pair[2]), pair[1].precision_class].append(pair)
    of_stack: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for model, run in (*((model, a) for model, a, *_ in pairs), *only_a):
        of_stack[_stack(run)].add(model)
    return [
        _move(first, second, precision, own, of_stack[_stack(own[0][1])])
        for (first, second, precision), own in sorted(grouped.items(), key=lambda one: one[0])
    ]


def _stack(run: RunRow) -> tuple[str, str, str]:
    return run.runtime, run.device, run.precision_class


def _names(a: RunRow, b: RunRow) -> tuple[str, str]:
    """The words that tell both stacks apart: runtime and kind of device or, where these are the same, the
    device's name."""
    kinds = [f"{run.runtime} on {run.device}" for run in (a, b)]
    if kinds[0] == kinds[1] and a.device_name != b.device_name:
        kinds = [f"{run.runtime} on {run.device_name}" for run in (a, b)]
    return (kinds[0], kinds[1]) if kinds[0] != kinds[1] else (f"{kinds[0]} in A", f"{kinds[0]} in B")


def _move(a: str, b: str, precision: str, pairs: Sequence[Compared], models: set[str]) -> Move:
    latencies = [pair for pair in pairs if pair[1].kind == "latency"]
    counts, well = _counts(latencies)
    accuracies, _ = _counts([pair for pair in pairs if pair[1].kind == "accuracy"])
    slower = [one for *_, one in latencies if one.verdict == "slower"]
    ratios = [
        one.primary.change for one in slower if one.primary is not None and one.primary.change is not None
    ]
    to_first = {
        model
        for model, _, _, one in latencies
        if model in well and "first_token" in one.figures and one.figures["first_token"].verdict == "slower"
    }
    return Move(
        a=a,
        b=b,
        precision=precision,
        latency=counts,
        worst=max(ratios, default=None),
        slower_to_first=len(to_first),
        accuracy=accuracies,
        not_run=len(models - {model for model, *_ in pairs}),
    )


def _counts(pairs: Sequence[Compared]) -> tuple[ModelCounts, set[str]]:
    """The models of these pairs, counted, and those that are well."""
    verdicts: defaultdict[str, list[RunVerdict]] = defaultdict(list)
    for model, _, _, one in pairs:
        verdicts[model].append(one.verdict)
    worst = {model: min(found, key=WORST_FIRST.index) for model, found in verdicts.items()}
    well = {model for model, verdict in worst.items() if verdict in WELL}

    def count(*names: RunVerdict) -> int:
        return sum(verdict in names for verdict in worst.values())

    return (
        ModelCounts(
            models=len(worst),
            well=len(well),
            worse=count("slower", "worse"),
            inconclusive=count("inconclusive"),
            failing=count("newly failing"),
            mended=count("no longer failing"),
            unknown=count("not comparable", "failing in both"),
        ),
        well,
    )


def _latency_parts(move: Move) -> Iterator[str]:
    found = move.latency
    if not found.models:
        yield "no latency compared"
        return
    yield f"{found.well} of {found.models} model{'s' * (found.models != 1)} same or faster"
    if move.slower_to_first:
        yield f"{move.slower_to_first} of these slower to the first token"
    if found.worse:
        worst = "" if move.worst is None else f" (worst {move.worst:.2f})"
        yield f"{found.worse} slower{worst}"
    yield from _rest(found)


def _accuracy_part(found: ModelCounts) -> str:
    if not found.models:
        return "no accuracy compared"
    less = "none" if not found.worse else str(found.worse)
    return ", ".join([f"{less} of {found.models} less accurate", *_rest(found)])


def _rest(found: ModelCounts) -> Iterator[str]:
    if found.inconclusive:
        yield f"{found.inconclusive} inconclusive"
    if found.failing:
        yield f"{found.failing} failing now"
    if found.mended:
        yield f"{found.mended} running that failed before"
    if found.unknown:
        yield f"{found.unknown} not comparable"
