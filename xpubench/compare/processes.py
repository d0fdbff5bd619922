"""How the processes of two runs were run, and the interval that this allows."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from math import exp, log
from statistics import fmean

import msgspec

from xpubench.compare.copies import process_key
from xpubench.compare.environments import lasting_facts
from xpubench.compare.figures import FIGURES, Figure, FigureName, unusable
from xpubench.compare.intervals import MIN_HISTORY, Noise, by_history, paired, pooled, welch
from xpubench.compare.judgement import ROUNDS_FOR_SAME, Judgement, judge_ratio, without_interval
from xpubench.record import Iteration, Record, Samples
from xpubench.spec import RunSpec

# Both runs of a round lie within a day.
ROUND_S = 86_400.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest changes that count, of a latency and of a peak of memory, as shares of the base."""

    latency: float = 0.05
    memory: float = 0.10


def interleaved(base: Sequence[Record], new: Sequence[Record]) -> bool:
    """Whether both runs have the same number of rounds, at least two, and took turns: all processes of a
    round were made before those of the next, and within a day. The times in the records decide, never the
    figures."""
    if len(base) != len(new) or len(base) < 2:
        return False
    try:
        made = [
            sorted(datetime.fromisoformat(one.created).timestamp() for one in pair)
            for pair in zip(base, new, strict=True)
        ]
    except (ValueError, OverflowError):
        return False
    in_turns = all(before[-1] <= after[0] for before, after in pairwise(made))
    return in_turns and all(late - early <= ROUND_S for early, late in made)


# Judges each figure of the processes of a base and of a new run.
Judge = Callable[[Sequence[Record], Sequence[Record], Limits], dict[FigureName, Judgement]]
# A side and the lasting facts of the environment, equal for processes that repeat each other.
Repeated = tuple[object, ...]


class EarlierRuns:
    """Repeated runs, from which the noise between processes is known where a side is a single one."""

    def __init__(self) -> None:
        self._groups: defaultdict[str, defaultdict[Repeated, list[Record]]]
        self._groups = defaultdict(lambda: defaultdict(list))
        self._known: set[bytes] = set()

    def add(self, records: Sequence[Record], side: str) -> None:
        """Adds usable latency runs, each once. Those of one `side` with equal environments repeat each
        other."""
        for record in records:
            # A directory may be named twice, or hold a copy.
            process = process_key(record)
            if process in self._known or not isinstance(record.spec, RunSpec):
                continue
            if record.status == "ok" and not unusable(record):
                self._known.add(process)
                self._groups[record.id][side, *sorted(lasting_facts(record))].append(record)

    def noise(self, run: Record, figure: Figure) -> Noise | None:
        """The noise of that figure between processes of a run on its machine, over all versions of its
        software; None where it was not repeated."""
        groups = [
            _logarithms(group, figure)
            for group in self._groups.get(run.id, {}).values()
            if len(group) > 1 and _machine(group[0]) == _machine(run)
        ]
        return pooled(groups)

    def judge(
        self, base: Sequence[Record], new: Sequence[Record], limits: Limits
    ) -> dict[FigureName, Judgement]:
        """The judgement on each figure that all processes of both sides have; the records must be usable.
        Rounds that took turns are paired, others are not. Where a side is a single process, the noise of
        these earlier runs serves, and without enough of them there is no interval and no verdict."""
        turns = interleaved(base, new)
        found: dict[FigureName, Judgement] = {}
        for name, figure in FIGURES.items():
            before, after = (_logarithms(side, figure) for side in (base, new))
            if [len(before), len(after)] != [len(base), len(new)]:
                continue
            limit = getattr(limits, figure.limit)
            if min(len(before), len(after)) > 1:
                interval = paired(before, after) if turns else welch(before, after)
                found[name] = judge_ratio(name, interval, limit, figure.words)
                continue
            noises = _noises(base[-1], new[-1], figure, self)
            known = [noise for noise in noises.values() if noise is not None and noise.freedom >= MIN_HISTORY]
            if len(known) == len(noises):
                found[name] = judge_ratio(name, by_history(before, after, *known), limit, figure.words)
            else:
                reason = _too_little(noises) + _loads_apart(base[-1], new[-1])
                reason += _over_loads(base[-1], new[-1], figure, limit)
                change = exp(fmean(after) - fmean(before))
                found[name] = without_interval(name, change, limit, reason)
        return found


def _noises(base: Record, new: Record, figure: Figure, earlier: EarlierRuns) -> dict[str, Noise | None]:
    """What earlier runs of the machine that both ran on tell of the noise: one value where both are one run,
    else one for each side. None where nothing is known, or the machines differ."""
    sides = {"the run": new} if base.id == new.id else {"the base": base, "the new run": new}
    one_machine = _machine(base) == _machine(new) is not None
    return {side: earlier.noise(run, figure) if one_machine else None for side, run in sides.items()}


def _too_little(noises: Mapping[str, Noise | None]) -> str:
    freedoms = {side: noise.freedom if noise is not None else 0 for side, noise in noises.items()}
    lacking = [f"{side} {freedom}" for side, freedom in freedoms.items() if freedom < MIN_HISTORY]
    return (
        "one process a side does not tell the noise between processes, and earlier runs of this machine give "
        f"{' and '.join(lacking)} of the {MIN_HISTORY} degrees of freedom that are needed; else run "
        f"at least {ROUNDS_FOR_SAME} rounds"
    )


def _loads_apart(base: Record, new: Record) -> str:
    """How far the loads within the processes lie apart, which is a part of the noise between processes."""
    told = []
    for side, record in (("base", base), ("new", new)):
        if record.latency is not None and record.latency.load_spread is not None:
            loads = len(record.samples.loads)
            told.append(f"{side}'s {loads} loads differ by {record.latency.load_spread:.1%}")
    return f"; within them, {' and '.join(told)}" if told else ""


def _over_loads(base: Record, new: Record, figure: Figure, limit: float) -> str:
    """The ratio with Welch's interval over the loads of two processes, where both have several. It has no
    part of what differs between processes beside the load, and therefore gives no verdict."""
    sides = [_logarithms(_of_each_load(record), figure) for record in (base, new)]
    if not figure.of_iterations or min(map(len, sides)) < 2:
        return ""
    over = judge_ratio("", welch(*sides), limit, figure.words)
    return f"; over the loads alone the ratio is {over.text}, without the noise between processes"


def _of_each_load(record: Record) -> list[Record]:
    """The record with the iterations of each load alone."""
    loads: defaultdict[int, list[Iteration]] = defaultdict(list)
    for one in record.samples.iterations:
        loads[one.load].append(one)
    return [
        msgspec.structs.replace(record, samples=Samples(iterations=iterations))
        for iterations in loads.values()
    ]


def _logarithms(records: Sequence[Record], figure: Figure) -> list[float]:
    return [log(value) for value in map(figure.value, records) if value is not None]


def _machine(record: Record) -> tuple[str, str] | None:
    """The device and the processor, None where the record does not tell."""
    device, host = record.environment.device, record.environment.host
    return (device.name, host.cpu) if device is not None and host is not None else None
