"""Several runtimes on one workload: a line each, with ratios to the first."""

from statistics import median

from xpubench.cli.tables import plain_console, plain_table
from xpubench.measure.statistics import median_ratio, summarize
from xpubench.record import Record
from xpubench.spec import RunSpec

Rounds = list[dict[str, list[Record]]]


def print_tables(rounds: Rounds, runtimes: list[str]) -> None:
    """A table for each workload. The ratios are of median next token latencies, above 1 is faster than the
    first runtime; intervals are 95%, of the ratio over rounds."""
    console = plain_console()
    for place in range(max(len(records) for records in rounds[0].values())):
        runs = {
            runtime: [done[runtime][min(place, len(done[runtime]) - 1)] for done in rounds]
            for runtime in runtimes
        }
        spec = runs[runtimes[0]][0].spec
        assert isinstance(spec, RunSpec)
        subject = spec.subject
        console.print(
            f"{subject.model} · {subject.device} {subject.dtype} · "
            f"{spec.workload.title(spec.workload.input_tokens)} · {len(rounds)} rounds"
        )
        table = plain_table(
            "runtime",
            "first token, ms",
            "next token, ms",
            "95% interval",
            "times as fast",
            "95% interval",
            "tokens/s",
            "peak host, GB",
            "load, s",
        )
        for runtime in runtimes:
            table.add_row(runtime, *_cells(runs[runtime], runs[runtimes[0]]))
        console.print(table)


def _cells(records: list[Record], first: list[Record]) -> list[str]:
    failed = [record for record in records if record.summary is None]
    if failed:
        return [failed[0].status, *["–"] * 7]
    summaries = [record.summary for record in records if record.summary is not None]
    next_ns = [one for record in records for one in _next_token_ns(record)]
    cells = [_ms(median(one.first_token_ms.median for one in summaries))]
    if next_ns:
        statistic = summarize(next_ns)
        cells += [_ms(statistic.median), _interval(statistic.ci95)]
    else:
        cells += ["–", "–"]
    if next_ns and all(record.summary is not None for record in first):
        # Latencies: the first's over ours is how many times as fast we are.
        ratio, low, high = median_ratio(_rounds_ns(records), _rounds_ns(first), paired=True)
        cells += [f"{ratio:.2f}", _interval(None if low is None or high is None else (low, high))]
    else:
        cells += ["–", "–"]
    peaks = [one.peak_host_bytes for one in summaries if one.peak_host_bytes is not None]
    return [
        *cells,
        f"{median(one.tokens_per_s for one in summaries):.1f}",
        f"{max(peaks) / 1e9:.2f}" if peaks else "–",
        f"{median(one.load_s for one in summaries):.2f}",
    ]


def _next_token_ns(record: Record) -> list[list[int]]:
    return [one.next_token_ns for one in record.samples.iterations if one.next_token_ns]


def _rounds_ns(records: list[Record]) -> list[list[int]]:
    """Of each round, the next token latencies of all iterations, so that a ratio is that of the medians
    beside it."""
    return [[one for row in _next_token_ns(record) for one in row] for record in records]


def _ms(value: float) -> str:
    return f"{value:.2f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
