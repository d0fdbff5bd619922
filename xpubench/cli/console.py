"""Progress on standard error and one table a run on standard output."""

import shlex
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xpubench.cli.tables import width_of
from xpubench.compare.title import title_of
from xpubench.measure.summary import median_iteration
from xpubench.plan import Plan
from xpubench.record import Accuracy, LatencySummary, Record, RunChecks, Statistic
from xpubench.report.text import NONE, divergence_text, gb_with_unit, interval, number

TOKENS_A_LINE = 10
LOG_LINES = 20
MODEL_STATUS = {
    "validated": "validated by the guide for Intel GPUs",
    "family": "not validated itself, of a validated family",
    "embedded": "comes with the harness; not one of the validated models",
    "unknown": "not validated, nor of a validated family",
}


class Reporter:
    """Tells how runs go on: a bar on a terminal, plain lines in a log."""

    def __init__(self, out: TextIO) -> None:
        self._err = Console(stderr=True, highlight=False)
        self._out = Console(file=out, highlight=False, width=width_of(out))
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
            # No thread that draws while a generation is timed; each step draws.
            auto_refresh=False,
        )
        self._task: TaskID | None = None
        self._done = 0
        self._total = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line about what happens now."""
        self._err.print(Text(text), soft_wrap=True)

    def begin(self, title: str, total: int) -> None:
        """At most `total` steps follow."""
        self._done, self._total = 0, total
        self.say(title)
        self._drop_task()
        self._task = self._bar.add_task("measuring", total=total, note="")
        self._bar.refresh()

    def step(self, text: str, count: int = 1) -> None:
        """`count` steps are done. In a log, a line tells of each twentieth of the whole."""
        before, self._done = self._done, self._done + count
        if self._err.is_terminal and self._task is not None:
            self._bar.update(self._task, advance=count, note=text, refresh=True)
        elif LOG_LINES * self._done // self._total > LOG_LINES * before // self._total:
            self.say(f"  {self._done}/{self._total} {text}")

    def show(self, record: Record, *, token_latency: bool, memory: bool, directory: Path) -> None:
        """The run's table, or the failure in its place."""
        self._drop_task()
        self._out.print(Text(title_of(record), style="bold"))
        if record.latency is not None:
            self._out.print(_latency_table(record.latency))
        details = Table.grid(padding=(0, 2))
        details.add_column(style="cyan", no_wrap=True)
        details.add_column(overflow="fold")
        for name, text in _details(record, memory):
            details.add_row(Text(name), Text(text))
        details.add_row(Text("record"), Text(str(directory / f"{record.id}.json")))
        self._out.print(details)
        if token_latency and record.latency is not None:
            self._out.print(Text(token_times(record)))
        self._out.print()

    def end(self, records: list[Record]) -> None:
        """What was done and what can be typed next."""
        failed = [record for record in records if record.status != "ok"]
        for record in failed:
            message = record.failure.message if record.failure else ""
            self.say(f"error: {record.status}: {message}")
        for line in what_next(records):
            self.say(line)

    def _drop_task(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def _latency_table(summary: LatencySummary) -> Table:
    table = Table()
    table.add_column("latency, ms", no_wrap=True)
    for name in ("median", "95% interval", "mean", "stdev", "p50", "p90", "p99", "samples"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, statistic in (
        ("first token", summary.first_token_ms),
        ("next token", summary.next_token_ms),
        ("end to end", summary.end_to_end_ms),
    ):
        if statistic is not None:
            table.add_row(name, *_cells(statistic))
    return table


def _cells(statistic: Statistic) -> list[str]:
    spread = (statistic.mean, statistic.stdev, statistic.p50, statistic.p90, statistic.p99)
    return [number(statistic.median), interval(statistic.ci95), *map(number, spread), str(statistic.n)]


def _details(record: Record, memory: bool) -> list[tuple[str, str]]:
    rows = []
    summary = record.latency
    if summary is not None:
        rows += [
            ("tokens/s", f"{summary.tokens_per_s:.2f}  (batch x new tokens / end to end)"),
            ("MBU", _mbu(summary)),
            ("perturbation", f"{summary.perturbation:.3f}  (every token stamped / only the ends)"),
            ("peak memory", _peaks(summary)),
            ("load", f"{summary.load_s:.2f} s"),
            ("checks", _checks(record.checks)),
            ("model", MODEL_STATUS[record.checks.validation or "unknown"]),
        ]
    if record.accuracy is not None and record.status in ("ok", "interrupted"):
        rows += _accuracy_rows(record.accuracy)
    if memory and record.plan is not None:
        rows.append(("plan", _planned(record.plan)))
    if record.divergence is not None:
        rows.append(("divergence", divergence_text(record.divergence)))
    if record.output is not None and record.output.first_text is not None:
        rows.append(("text", record.output.first_text))
    if record.failure is not None:
        rows.append(("failed", f"{record.failure.failure_class}: {record.failure.message}"))
    return rows + [("warning", warning) for warning in record.warnings]


def _peaks(summary: LatencySummary) -> str:
    device, host = gb_with_unit(summary.peak_device_bytes), gb_with_unit(summary.peak_host_bytes)
    return f"device {device}, host {host}"


def _mbu(summary: LatencySummary) -> str:
    if summary.step_bytes is None or summary.next_token_ms is None:
        return "unknown"
    parts = [f"{gb_with_unit(summary.step_bytes)} a step"]
    for value, bandwidth, name in (
        (summary.mbu_measured, summary.bandwidth_measured_gb_per_s, "measured"),
        (summary.mbu_datasheet, summary.bandwidth_datasheet_gb_per_s, "on the data sheet"),
    ):
        if value is not None:
            parts.append(f"{value:.2f} of {bandwidth:.1f} GB/s {name}")
    return ", ".join(parts)


def _checks(checks: RunChecks) -> str:
    cache = checks.cache or "hidden by the stack"
    logits = "logits finite" if checks.logits_finite else "logits hidden by the stack"
    return f"{checks.new_tokens} tokens each time, {logits}, cache {cache}" + (
        f" of {checks.cache_positions} positions" if checks.cache_positions else ""
    )


def _accuracy_rows(found: Accuracy) -> list[tuple[str, str]]:
    rows = [
        ("accuracy", NONE if found.acc is None else _with_error(found.acc * 100, found.acc_stderr, 100, " %"))
    ]
    if found.perplexity is not None:
        rows.append(("perplexity", _with_error(found.perplexity, found.perplexity_stderr, 1, "")))
    others = {"acc", "acc_stderr", "perplexity", "perplexity_stderr"}
    rows += [
        (name, f"{value:.4f}")
        for name, value in found.metrics.items()
        if name not in others and value is not None
    ]
    if found.reference is not None:
        rows.append(("reference", f"{found.reference.acc:.2%} ({found.reference.source})"))
    batch = f"batch {found.batch_size}" if found.batch_size else f"batches of {found.batch_tokens} tokens"
    part = ", a part of all" if found.partial else ""
    rows.append(("items", f"{found.n}{part}, {found.items_per_s:.2f} a second, {batch}"))
    return rows


def _with_error(value: float, stderr: float | None, scale: float, unit: str) -> str:
    return f"{value:.2f}{unit}" + (f" +- {stderr * scale:.2f}" if stderr is not None else "")


def _planned(plan: Plan) -> str:
    return (
        f"weights {gb_with_unit(plan.weight_bytes)}, KV cache {gb_with_unit(plan.kv_cache_bytes)}, "
        f"peak {gb_with_unit(plan.peak_bytes)}"
    )


def token_times(record: Record) -> str:
    """Each token's time in milliseconds, of the iteration with the median next token latency."""
    iteration = median_iteration(record.samples)
    if iteration is None or iteration.first_token_ns is None:
        return ""
    times = [number(ns / 1e6) for ns in [iteration.first_token_ns, *(iteration.next_token_ns or [])]]
    lines = [
        f"  {start + 1:5d}  " + "  ".join(f"{time:>8}" for time in times[start : start + TOKENS_A_LINE])
        for start in range(0, len(times), TOKENS_A_LINE)
    ]
    return "\n".join(["time of each token of the median iteration, ms", *lines])


def what_next(records: list[Record]) -> list[str]:
    """One or two commands that a newcomer can go on with."""
    done = [record for record in records if record.status == "ok"]
    if not done:
        return ["see what this machine can run: xpubench doctor"]
    subject = done[0].spec.subject
    script = "python run_generation.py"
    if subject.tp_size > 1:
        script = f"mpirun -np {subject.tp_size} python -u run_generation_with_deepspeed.py"
    command = f"{script} -m {shlex.quote(subject.model)} --benchmark --device {subject.device}"
    if subject.weights == "dummy":
        return [f"next, what the hardware allows: xpubench plan -m {shlex.quote(subject.model)}"]
    return [
        f"next, shapes in one load: {command} --greedy --input-tokens 32 128 512 --max-new-tokens 32",
        f"next, are the tokens right: {command} --greedy --reference cpu-float32",
    ]
