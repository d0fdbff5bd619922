"""`python -m benchmarks.verdict`: how often verdicts are wrong, and how often they find what is there.

The figures are simulated, and judged by the functions that judge records. The tables show rates, and goals
stand below them. What a simulation assumes is written where it draws. With `--live FILE`, the figures are
those of comparisons of real processes instead (see `benchmarks.verdict_live`), with `--items` those of the
answers in two accuracy records.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from benchmarks.goal import Goal, show
from xpubench.compare.change_points import Changes, changes
from xpubench.compare.intervals import MIN_HISTORY, Interval, by_history, paired, pooled, welch
from xpubench.compare.judgement import LATENCY, judge_ratio
from xpubench.compare.live import running_verdicts
from xpubench.errors import UserError
from xpubench.measure.sequential import DECIDES, item_capitals
from xpubench.record import read_record

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

# Rates of so many repeats have a standard error of 0.2 and of 0.5 points.
COVERED, JUDGED = 10_000, 2_000
LIMIT, SLOWER, DRIFT = 0.05, 0.10, 0.10
ROUNDS, NOISES = (2, 3, 5, 10), (0.02, 0.05, 0.10)
# A process runs so many iterations with a noise of their own, and one in twenty takes 1.5 times as long.
ITERATIONS, ITERATION_NOISE, SPIKES, SPIKE = 7, 0.02, 0.05, 0.4
LIVE_SERIES, LIVE_BLOCKS, BUDGET, LIVE_LIMIT = 4_000, 120, 20, 0.03
# The pairs that find 3% with 3% noise in nine of ten repeats, when the noise is known before.
FIXED_PLAN = 24
CELLS, REPORTS, TRULY_SLOWER = 40, 500, 4
ITEMS, ORDERS, ACCURACY_LIMIT = 5_153, 50, 0.03
SERIES, RUNS = 1_000, 60
BOOTSTRAP = """
import resource
from time import process_time
import numpy as np
from xpubench.measure.bootstrap import resampled_medians
rows = np.random.default_rng(0).normal(size=(20_000, 128))
start = process_time()
resampled_medians(rows, seed=0)
print(process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
"""


def normal(source: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return source.standard_normal(shape)


def heavy(source: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Student's t with three degrees of freedom, scaled to a variance of 1."""
    return np.asarray(source.standard_t(3, shape) / np.sqrt(3))


def bursts(source: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Four times as wide in one case of ten, scaled to a variance of 1."""
    wide = np.where(source.random(shape) < 0.1, 4.0, 1.0)
    return np.asarray(source.standard_normal(shape) * wide / np.sqrt(2.5))


KINDS: dict[str, Draw] = {"normal": normal, "heavy-tailed": heavy, "in bursts": bursts}


def processes(source: np.random.Generator, draw: Draw, shape: tuple[int, int], noise: float) -> Floats:
    """[repeat, round]: the logarithm of a process's median latency."""
    spikes = np.where(source.random((*shape, ITERATIONS)) < SPIKES, SPIKE, 0.0)
    iterations = ITERATION_NOISE * source.standard_normal((*shape, ITERATIONS)) + spikes
    return np.asarray(np.median(iterations, axis=2) + noise * draw(source, shape))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a table in Markdown."""
    head = list(columns)
    print(f"\n{title}\n")
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def share(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


def from_records() -> Iterator[Goal]:
    """Intervals over rounds: those that take turns share a drift of 10% between rounds, others have none."""
    source = np.random.default_rng(16)
    rows: list[list[object]] = []
    least, most_false = 1.0, 0.0
    for (kind, draw), noise, rounds in product(KINDS.items(), NOISES, ROUNDS):
        shape = (COVERED, rounds)
        drift = DRIFT * source.standard_normal(shape)
        base, new = (processes(source, draw, shape, noise) for _ in "ab")
        in_turns = [
            paired(*sides) for sides in zip((base + drift).tolist(), (new + drift).tolist(), strict=True)
        ]
        apart = [welch(*sides) for sides in zip(base.tolist(), new.tolist(), strict=True)]
        covers = [share(one.low <= 0 <= one.high for one in found) for found in (in_turns, apart)]
        verdicts = [judge_ratio("", one, LIMIT, LATENCY).verdict for one in in_turns[:JUDGED]]
        moved = [_moved(one, log(1 + SLOWER)) for one in in_turns[:JUDGED]]
        found = share(judge_ratio("", one, LIMIT, LATENCY).verdict == "slower" for one in moved)
        missed = share(judge_ratio("", one, LIMIT, LATENCY).verdict == "same" for one in moved)
        half = float(np.median([one.high - one.estimate for one in in_turns]))
        same, false = (share(one in names for one in verdicts) for names in (["same"], ["slower", "faster"]))
        least, most_false = min(least, *covers), max(most_false, false)
        rows.append(
            [
                *(kind, f"{noise:.0%}", rounds, *(f"{one:.1%}" for one in covers)),
                *(f"{np.expm1(half):.1%}", f"{found:.0%}", f"{same:.0%}", f"{false:.1%}", f"{missed:.2%}"),
            ]
        )
    table(
        f"Records of rounds, limit {LIMIT:.0%}",
        [
            *("noise between processes", "size", "rounds", "paired t covers", "Welch covers"),
            *("half width", "+10% found", "`same` at 0", "false at 0", "`same` at +10%"),
        ],
        rows,
    )
    yield Goal("what the intervals over rounds miss, at most", 100 * (1 - least), 6, "%", "worst cell")
    repeats = 0.05 * normal(source, (COVERED, MIN_HISTORY + 3))
    noises = (pooled([row[2:]]) for row in repeats.tolist())
    alone = [
        by_history(row[:1], row[1:2], noise)
        for row, noise in zip(repeats.tolist(), noises, strict=True)
        if noise is not None
    ]
    missed_alone = 100 * (1 - share(one.low <= 0 <= one.high for one in alone))
    detail = f"one process a side, {MIN_HISTORY + 1} earlier ones"
    yield Goal("what the interval by the noise of earlier runs misses", missed_alone, 6, "%", detail)
    yield Goal("false verdicts over rounds, at most", 100 * most_false, 6, "%", "worst cell")


def _moved(interval: Interval, by: float) -> Interval:
    """The interval had the new run been slower by a factor of e to `by`."""
    ends = {name: getattr(interval, name) + by for name in ("estimate", "low", "high")}
    return Interval(**{name: getattr(interval, name) for name in interval.__struct_fields__} | ends)


def many_runs() -> None:
    """Reports of 40 runs, 4 of them 5% slower, at 2% noise: what adjustment for their number costs."""
    source = np.random.default_rng(17)
    rows = []
    for rounds in (5, 10, 20):
        effect = np.where(np.arange(CELLS) < TRULY_SLOWER, log(1.05), 0.0)
        differences = effect[None, :, None] + 0.02 * np.sqrt(2) * normal(source, (REPORTS, CELLS, rounds))
        zeros = [0.0] * rounds
        found = [[paired(zeros, cell).p_value for cell in report] for report in differences.tolist()]
        plain = np.array(found) <= 0.05
        adjusted = false_discovery_control(found, axis=1) <= 0.05
        for name, marked in (("unadjusted", plain), ("Benjamini-Hochberg", adjusted)):
            wrong = marked[:, TRULY_SLOWER:]
            share_false = np.mean(wrong.sum(axis=1) / np.maximum(marked.sum(axis=1), 1))
            power = marked[:, :TRULY_SLOWER].mean()
            rows.append(
                [rounds, name, f"{wrong.any(axis=1).mean():.0%}", f"{share_false:.1%}", f"{power:.0%}"]
            )
    columns = ("rounds", "marks", "reports with a false one", "false of the marked", "of the 4 found")
    table("40 runs, 4 of them 5% slower, 2% noise", columns, rows)


def decisions(
    source: np.random.Generator, draw: Draw, noise: float, slow: float, blocks: int
) -> tuple[Floats, NDArray[np.str_]]:
    """The blocks after which each series was decided, the last where it was not, and its verdict. A block is
    the difference of two processes, each with the noise."""
    differences = log(1 + slow) + np.sqrt(2) * noise * draw(source, (LIVE_SERIES, blocks))
    verdicts = running_verdicts(differences, log(1 + LIVE_LIMIT))
    decided = verdicts != "inconclusive"
    place = np.where(decided.any(axis=1), decided.argmax(axis=1), blocks - 1)
    return place + 1.0, verdicts[np.arange(LIVE_SERIES), place]


def live() -> Iterator[Goal]:
    """Blocks that are looked at one after the other."""
    source = np.random.default_rng(18)
    rows: list[list[object]] = []
    wrong = 0.0
    for (kind, draw), noise in product(KINDS.items(), (0.01, 0.02, 0.05, 0.10)):
        _, verdicts = decisions(source, draw, noise, 0.0, LIVE_BLOCKS)
        rate = float(np.isin(verdicts, ["slower", "faster"]).mean())
        wrong = max(wrong, rate)
        rows.append([kind, f"{noise:.0%}", f"{rate:.1%}", f"{(verdicts == 'same').mean():.0%}"])
    title = (
        f"Live, the same twice, looked at after each of up to {LIVE_BLOCKS} blocks, limit {LIVE_LIMIT:.0%}"
    )
    table(title, ("noise", "of a process", "false verdicts", "`same`"), rows)
    yield Goal("false verdicts live", 100 * wrong, 4, "%", "worst kind and noise, 120 looks")
    rows = []
    for noise, slow in product((0.01, 0.0165, 0.02, 0.03, 0.05), (0.0, 0.03, 0.05, 0.10)):
        blocks, verdicts = decisions(source, normal, noise, slow, BUDGET)
        shares = (f"{(verdicts == name).mean():.1%}" for name in ("slower", "same", "inconclusive"))
        middle, last = np.percentile(blocks, [50, 90])
        rows.append([f"{np.sqrt(2) * noise:.1%}", f"{slow:+.0%}", *shares, f"{middle:.0f}", f"{last:.0f}"])
    columns = ("sd of a block", "change", "`slower`", "`same`", "inconclusive", "median blocks", "90% within")
    table(f"Live, at most {BUDGET} blocks, limit {LIVE_LIMIT:.0%}", columns, rows)
    _, verdicts = decisions(source, normal, 0.028 / np.sqrt(2), 0.03, BUDGET)
    found = float((verdicts == "slower").mean())
    detail = "blocks' sd 2.8%, at most 20 blocks"
    yield Goal("planted 3% that is not found live", 100 * (1 - found), 10, "%", detail)
    _, verdicts = decisions(source, normal, 0.05 / np.sqrt(2), 0.10, 10)
    yield Goal(
        "planted 10% that is not found in 10 blocks",
        100 * float((verdicts != "slower").mean()),
        10,
        "%",
        "blocks' sd 5%",
    )
    yield Goal(
        "planted 10% called the same", 100 * float((verdicts == "same").mean()), 0.2, "%", "blocks' sd 5%"
    )
    for noise, slow in ((0.01, 0.03), (0.02, 0.03), (0.03, 0.05)):
        blocks, _ = decisions(source, normal, noise, slow, 2 * FIXED_PLAN)
        taken = float(blocks.mean()) / FIXED_PLAN
        detail = f"{noise:.0%} noise of a process, {slow:+.0%}"
        yield Goal("blocks live / those of a plan for 3% at 3% noise", taken, 0.55, "", detail)


def accuracy() -> Iterator[Goal]:
    """Items read until a bound decides, of as many as LAMBADA has, in orders drawn by chance. Beside those of
    the planted loss, as many are lost as gained, so that the share of items that differ is as given."""
    series: list[tuple[str, float, Floats]] = []
    for differing, points in product((0.05, 0.15), (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)):
        net = round(points / 100 * ITEMS)
        others = max(0, round(differing * ITEMS) - net) // 2
        items = np.zeros(ITEMS)
        items[: net + others], items[net + others : net + 2 * others] = -1, 1
        series.append((f"{differing:.0%}", points, items))
    yield from until_decided(series, "simulated")


def until_decided(series: Iterable[tuple[str, float, Floats]], which: str) -> Iterator[Goal]:
    """What the bound says of items in orders drawn by chance. Each of the series has the share of the items
    that differ, the points lost, and for each item whether it is lost (-1), gained (1), or neither (0)."""
    source = np.random.default_rng(19)
    rows: list[list[object]] = []
    most_wrong, most_read, total = 0.0, 0.0, 0
    for differing, points, items in series:
        total = len(items)
        orders = source.permuted(np.tile(items, (ORDERS, 1)), axis=1)
        crossed = {
            side: item_capitals(orders, total, ACCURACY_LIMIT, side) >= DECIDES
            for side in ("within", "beyond")
        }
        first = {
            side: np.where(one.any(axis=1), one.argmax(axis=1) + 1, total) for side, one in crossed.items()
        }
        read = np.minimum(first["within"], first["beyond"])
        verdicts = np.where(
            read == total, "all read", np.where(first["within"] < first["beyond"], "within", "beyond")
        )
        false = "beyond" if points < 100 * ACCURACY_LIMIT else "within"
        wrong, middle = float((verdicts == false).mean()), float(np.median(read)) / total
        if points != 100 * ACCURACY_LIMIT:
            most_wrong = max(most_wrong, wrong)
        if points <= 1:
            most_read = max(most_read, middle)
        shares = (f"{(verdicts == name).mean():.0%}" for name in ("within", "beyond", "all read"))
        rows.append([differing, f"{points:g}", *shares, f"{middle:.0%}"])
    columns = (
        "items that differ",
        "points lost",
        "within 3 points",
        "beyond",
        "all read",
        "median share read",
    )
    table(f"Accuracy until decided, {total} items ({which}), {ORDERS} orders", columns, rows)
    yield Goal("wrong decisions on accuracy", 100 * most_wrong, 5, "%", f"{which}; none at the limit")
    yield Goal("items read where at most 1 point is lost", 100 * most_read, 35, "%", f"{which}; worst median")


def real_items(base: Path, new: Path) -> Iterator[Goal]:
    """The same with the items of two accuracy records, over and over where they are fewer than LAMBADA has:
    of each item the bound sees nothing but whether it is lost or gained. The points that are lost are
    planted: of the items that both have right, some drawn by chance are lost too, or of those that are lost
    some are not."""
    source = np.random.default_rng(21)
    before, after = (
        {item.id: bool(item.correct) for item in record.accuracy.items}
        for record in map(read_record, (base, new))
        if record.accuracy is not None
    )
    if before.keys() != after.keys():
        raise UserError(f"{base} and {new} hold other items")
    answers = np.array([[before[one], after[one]] for one in before], dtype=float)
    found = np.resize(answers, (max(ITEMS, len(answers)), 2))
    series = []
    for points in (0.0, 0.5, 1.0, 2.0, 5.0):
        items = found[:, 1] - found[:, 0]
        surplus = round(points / 100 * len(items)) + round(items.sum())
        places = np.flatnonzero(found.min(axis=1) == 1 if surplus > 0 else items == -1)
        items[source.choice(places, abs(surplus), replace=False)] = -1.0 if surplus > 0 else 0.0
        series.append((f"{np.mean(items != 0):.1%}", points, items))
    lost, gained = (int((answers[:, 1] - answers[:, 0] == one).sum()) for one in (-1, 1))
    which = f"of {len(answers)} real ones, {lost} lost and {gained} gained before the planting"
    yield from until_decided(series, which)


def history() -> Iterator[Goal]:
    """Series of 60 runs: flat ones that are marked, and steps in the middle found to within two runs."""
    source = np.random.default_rng(20)
    rows: list[list[object]] = []
    marked, found_at_1 = 0.0, 0.0
    for (kind, draw), noise in product(KINDS.items(), (0.01, 0.02, 0.05)):
        flat = noise * draw(source, (SERIES, RUNS))
        steps = flat + np.where(np.arange(RUNS) < RUNS // 2, 0.0, log(1.03))
        line = flat + np.linspace(0, log(1.12), RUNS)
        wrong = share(bool(one.steps) or one.drift is not None for one in _changes(flat))
        found = share(any(abs(at - RUNS // 2) <= 2 for at in one.steps) for one in _changes(steps))
        drift = share(one.drift is not None for one in _changes(line))
        marked = max(marked, wrong)
        found_at_1 = found if (kind, noise) == ("normal", 0.01) else found_at_1
        rows.append([kind, f"{noise:.0%}", f"{wrong:.1%}", f"{found:.0%}", f"{drift:.0%}"])
    columns = ("noise", "size", "flat ones marked", "+3% in the middle found", "a drift of 12% called drift")
    table(f"History, {RUNS} runs", columns, rows)
    yield Goal("flat series that are marked", 100 * marked, 2, "%", "worst kind and noise")
    yield Goal("steps of 3% at 1% noise that are not found", 100 * (1 - found_at_1), 10, "%", "normal noise")


def bootstrap() -> Iterator[Goal]:
    """The interval of a median over many iterations, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", BOOTSTRAP], capture_output=True, text=True, check=True)
    seconds, peak_mb = map(float, done.stdout.split())
    yield Goal("the bootstrap of 20,000 iterations of 128 tokens", seconds, 10, " s", "processor time")
    yield Goal("its peak of memory", peak_mb, 500, " MB", "with the interpreter's")


def _changes(series: Floats) -> Iterator[Changes]:
    return (changes(one, log(1.02)) for one in series)


def run() -> Iterator[Goal]:
    """All tables and goals."""
    yield from from_records()
    many_runs()
    yield from live()
    yield from accuracy()
    yield from history()
    yield from bootstrap()


def main() -> int:
    """Prints the simulations, or what live comparisons gave."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__)
    add = parser.add_argument
    add(
        "--live",
        type=Path,
        metavar="FILE",
        help="the live comparisons in FILE, to which those wanted are added",
    )
    add("--minutes", type=float, default=30.0, help="about so long (default: 30); 0 shows the file alone")
    add("--design", choices=("light", "smollm2"), help="add comparisons of this process alone")
    note = "two accuracy records of the same items, into whose answers losses are planted"
    add("--items", type=Path, nargs=2, metavar=("BASE", "NEW"), help=note)
    args = parser.parse_args()
    if args.items is not None:
        return show(real_items(*args.items))
    if args.live is None:
        return show(run())
    from benchmarks import verdict_live

    verdict_live.measure(args.live, args.design, args.minutes)
    return show(verdict_live.goals(verdict_live.read(args.live)))


if __name__ == "__main__":
    sys.exit(main())
