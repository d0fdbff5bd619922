"""Several runtimes on one workload: a line each, with ratios to the first."""

from collections.abc import Iterator
from statistics import median

import msgspec

from xpubench.compare.figures import next_token_rows
from xpubench.compare.processes import EarlierRuns, Limits
from xpubench.compare.run import compare_runs
from xpubench.compare.work import precision_class
from xpubench.measure.statistics import summarize
from xpubench.record import Record
from xpubench.report.text import NONE, gb, interval, number
from xpubench.spec import RunSpec

COLUMNS = (
    *("runtime", "precision", "first token, ms", "prompt, tokens/s", "next token, ms", "95% interval"),
    *("times as fast", "95% interval", "verdict", "tokens/s", "peak host, GB", "load, s"),
)


class SideBySide(msgspec.Struct, frozen=True, kw_only=True):
    """Several runtimes on one workload: a row for each, with a text for each of `COLUMNS`."""

    title: str
    rows: list[list[str]]


def side_by_side(rounds: list[dict[str, list[Record]]], runtimes: list[str]) -> Iterator[SideBySide]:
    """A table for each workload, from each runtime's records in each round. The verdict on a runtime's next
    token latency (of one token the first) beside the first runtime's is that of `xpubench compare`, with the
    ratio turned over, so that above 1 is faster."""
    for place in range(max(len(records) for records in rounds[0].values())):
        runs = {
            runtime: [done[runtime][min(place, len(done[runtime]) - 1)] for done in rounds]
            for runtime in runtimes
        }
        first = runs[runtimes[0]]
        spec = first[0].spec
        assert isinstance(spec, RunSpec)
        subject, workload = spec.subject, spec.workload.title(spec.workload.input_tokens)
        yield SideBySide(
            title=f"{subject.model} · {subject.device} · {workload} · {len(rounds)} rounds",
            rows=[
                [runtime, precision_class(runs[runtime][-1]), *_cells(runs[runtime], first)]
                for runtime in runtimes
            ],
        )


def _cells(records: list[Record], first: list[Record]) -> list[str]:
    summaries = [record.latency for record in records if record.latency is not None]
    if len(summaries) < len(records):
        return [next(one.status for one in records if one.latency is None), *[NONE] * 9]
    prompts = [one.prompt_tokens_per_s for one in summaries if one.prompt_tokens_per_s is not None]
    cells = [
        number(median(one.first_token_ms.median for one in summaries)),
        number(median(prompts) if prompts else None, 1),
        *[NONE] * 5,
    ]
    if next_ns := [row for record in records for row in next_token_rows(record)]:
        statistic = summarize(next_ns)
        cells[2:4] = number(statistic.median), interval(statistic.ci95)
    judged = None
    if records is not first:
        judged = compare_runs(first, records, Limits(), "next_token", EarlierRuns().judge).primary
    if judged is not None and judged.change is not None:
        low, high = judged.ends or (None, None)
        ends = None if low is None or high is None else (1 / high, 1 / low)
        cells[4:7] = number(1 / judged.change), interval(ends), judged.verdict
    return [
        *cells,
        f"{median(one.tokens_per_s for one in summaries):.1f}",
        gb(max((one.peak_host_bytes for one in summaries if one.peak_host_bytes is not None), default=None)),
        f"{median(one.load_s for one in summaries):.2f}",
    ]
