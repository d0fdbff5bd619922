"""Progress on standard error, and a table for each run on standard output."""

import shlex
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xpubench.cli.explained import explanation_tables
from xpubench.cli.tables import console_for
from xpubench.compare.title import title_of
from xpubench.measure.summary import median_iteration
from xpubench.record import Accuracy, LatencySummary, NeighbourChecks, Record, RunChecks, TokenChecks
from xpubench.report.batches import batch_curves
from xpubench.report.text import NONE, divergence_text, gb_with_unit, interval, number

TOKENS_A_LINE = 10
LOG_LINES = 20
MODEL_STATUS = {
    "validated": "validated by the guide for Intel GPUs",
    "family": "not validated, but other models of its family are",
    "embedded": "comes with the harness; not one of the validated models",
    "unknown": "not validated, nor is any model of its family",
}
STATISTICS = ("median", "95% interval", "mean", "stdev", "p50", "p90", "p99", "samples")


class Reporter:
    """Shows how runs proceed: a bar on a terminal, plain lines in a log."""

    def __init__(self, out: TextIO) -> None:
        self._err = Console(stderr=True, highlight=False)
        self._out = console_for(out)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
            # A thread that draws would disturb the generation that is timed; each step draws instead.
            auto_refresh=False,
        )
        self._task = self._bar.add_task("measuring", visible=False, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Prints one line about the present work."""
        self._err.print(Text(text), soft_wrap=True)

    def begin(self, title: str, total: int) -> None:
        """Announces at most `total` steps."""
        self.say(title)
        self._bar.reset(self._task, total=total, visible=True, note="")
        self._bar.refresh()

    def step(self, text: str, count: int = 1) -> None:
        """Counts `count` steps as done. A log gets a line for each twentieth of the whole."""
        done, total = self._bar.tasks[0].completed + count, self._bar.tasks[0].total or 1
        self._bar.update(self._task, completed=done, note=text, refresh=True)
        if not self._err.is_terminal and LOG_LINES * done // total > LOG_LINES * (done - count) // total:
            self.say(f"  {done:.0f}/{total:.0f} {text}")

    def downloading(self, under_way: bool) -> None:
        """Does nothing, because no timeout applies here, and libraries show their own downloads."""

    def show(self, record: Record, *, token_latency: bool, memory: bool, directory: Path | None) -> None:
        """Prints the run's table, or its failure; `directory` is that of its record, None where it could not
        be written."""
        self._bar.update(self._task, visible=False)
        self._out.print(Text(title_of(record), style="bold"))
        if record.latency is not None:
            self._out.print(_latency_table(record.latency))
        details = Table.grid(padding=(0, 2))
        details.add_column(style="cyan", no_wrap=True)
        details.add_column(overflow="fold")
        place = "not written" if directory is None else str(directory / f"{record.id}.json")
        for name, text in (*_details(record, memory), ("record", place)):
            details.add_row(name, text)
        self._out.print(details)
        for table in explanation_tables(record):
            self._out.print(table)
        if token_latency and record.latency is not None:
            self._out.print(_token_times(record))
        self._out.print()

    def show_batches(self, records: list[Record]) -> None:
        """Prints how decode grows with the batch, where runs differ in that alone."""
        for curve in batch_curves(records):
            self._out.print(Text(f"batches of {curve.title}", style="bold"))
            self._out.print(Text(f"{curve.line}: {curve.message}"), soft_wrap=True)

    def end(self, records: list[Record]) -> None:
        """Prints the failures, and commands to continue with."""
        for record in records:
            if record.status != "ok":
                self.say(f"error: {record.status}: {record.failure.message if record.failure else ''}")
        for line in _next_commands(records):
            self.say(line)


def _latency_table(summary: LatencySummary) -> Table:
    table = Table()
    table.add_column("latency, ms", no_wrap=True)
    for name in STATISTICS:
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("first token", "next token", "end to end"):
        if one := getattr(summary, f"{name.replace(' ', '_')}_ms"):
            spread = map(number, (one.mean, one.stdev, one.p50, one.p90, one.p99))
            table.add_row(name, number(one.median), interval(one.ci95), *spread, str(one.n))
    return table


def _details(record: Record, memory: bool) -> list[tuple[str, str]]:
    rows = []
    if (summary := record.latency) is not None:
        device, host = gb_with_unit(summary.peak_device_bytes), gb_with_unit(summary.peak_host_bytes)
        rows += [
            *_prompt(summary),
            ("tokens/s", f"{summary.tokens_per_s:.2f}  (batch x new tokens / end to end)"),
            *_until_ci(summary),
            ("MBU", _mbu(summary)),
            *_drafts(summary),
            *_expected(record),
            ("perturbation", _perturbation(summary)),
            ("peak memory", f"device {device}, host {host}"),
            ("load", _load(record, summary)),
            *_cores(summary),
            ("checks", _checks(record.checks)),
            ("model", MODEL_STATUS[record.checks.validation or "unknown"]),
        ]
    if record.accuracy is not None and record.status in ("ok", "interrupted"):
        rows += _accuracy_rows(record.accuracy)
    if memory and (plan := record.plan) is not None:
        weights, cache, peak = map(gb_with_unit, (plan.weight_bytes, plan.kv_cache_bytes, plan.peak_bytes))
        rows.append(("plan", f"weights {weights}, KV cache {cache}, peak {peak}"))
    if record.divergence is not None:
        rows.append(("divergence", divergence_text(record.divergence)))
    if record.output is not None and record.output.first_text is not None:
        rows.append(("text", record.output.first_text))
    if record.failure is not None:
        rows.append(("failed", f"{record.failure.failure_class}: {record.failure.message}"))
    return rows + [("warning", warning) for warning in record.warnings]


def _prompt(summary: LatencySummary) -> list[tuple[str, str]]:
    """The rate of the prompt, which users of llama-bench know as pp."""
    if summary.prompt_tokens_per_s is None:
        return []
    text = f"{number(summary.prompt_tokens_per_s)} tokens/s  (batch x input tokens / first token)"
    if summary.prompt_share_of_peak is not None and summary.peak_tflop_per_s is not None:
        peak = f"{summary.peak_tflop_per_s:.3g} TFLOP/s that this device has shown"
        text += f", {summary.prompt_share_of_peak:.2f} of the {peak} in matrix products"
    return [("prompt", text)]


def _load(record: Record, summary: LatencySummary) -> str:
    loads = record.samples.loads
    if len(loads) < 2 or summary.load_spread is None:
        huge = loads[0].huge_page_bytes if loads else None
        return f"{summary.load_s:.2f} s" + (f", {gb_with_unit(huge)} in huge pages" if huge else "")
    huge = max(one.huge_page_bytes or 0 for one in loads)
    pages = f", up to {gb_with_unit(huge)} in huge pages" if huge else ""
    return f"{len(loads)} of {summary.load_s:.2f} s, {summary.load_spread:.1%} apart{pages}"


def _cores(summary: LatencySummary) -> list[tuple[str, str]]:
    if summary.cores is None:
        return []
    wanted = "" if summary.cores_wanted is None else f" of {summary.cores_wanted:.2f} that its threads wanted"
    return [("cores", f"{summary.cores:.2f}{wanted}")]


def _expected(record: Record) -> list[tuple[str, str]]:
    found = record.expectation
    return [] if found is None or found.message is None else [("next token", found.message)]


def _perturbation(summary: LatencySummary) -> str:
    ends, pairs = summary.perturbation_ci95, summary.perturbation_pairs
    known = f" {interval(ends)}" if ends is not None else ""
    made = f", {pairs} pair{'s' * (pairs != 1)}" if pairs is not None else ""
    return f"{summary.perturbation:.3f}{known}  (every token stamped / only the ends{made})"


def _until_ci(summary: LatencySummary) -> list[tuple[str, str]]:
    found = summary.until_ci
    if found is None or found.half_width is None:
        return []
    ended = "ended" if found.reached else "did not end"
    known = f"next token {number(found.mean_ms)} ms within {found.half_width:.2%} after {found.pairs} pairs"
    return [("until", f"{known}, which {ended} the run (--until-ci {100 * found.wanted:g})")]


def _drafts(summary: LatencySummary) -> list[tuple[str, str]]:
    if summary.tokens_per_step is None:
        return []
    accepted = "" if summary.acceptance is None else f", {summary.acceptance:.0%} of the drafts accepted"
    return [("drafts", f"{summary.tokens_per_step:.2f} tokens a step{accepted}")]


def _mbu(summary: LatencySummary) -> str:
    if summary.step_bytes is None or summary.next_token_ms is None:
        return "unknown"
    parts = [f"{gb_with_unit(summary.step_bytes)} a step"]
    ceiling = "that this device has shown" if summary.ceiling_of == "device" else "measured"
    if (ends := summary.mbu_measured_interval) is not None:
        ceiling += f" ({ends[0]:.2f} to {ends[1]:.2f})"
    for value, bandwidth, name in (
        (summary.mbu_measured, summary.bandwidth_measured_gb_per_s, ceiling),
        (summary.mbu_datasheet, summary.bandwidth_datasheet_gb_per_s, "on the data sheet"),
    ):
        if value is not None:
            parts.append(f"{value:.2f} of {bandwidth:.1f} GB/s {name}")
    return ", ".join(parts)


def _checks(checks: RunChecks) -> str:
    logits = "logits finite" if checks.logits_finite else "logits hidden by the stack"
    positions = f" of {checks.cache_positions} positions" if checks.cache_positions else ""
    cache = (checks.cache or "hidden by the stack") + positions
    tokens = f"{checks.new_tokens} tokens each time{_token_checks(checks.tokens)}"
    return f"{tokens}, {logits}{_neighbours(checks.neighbours)}, cache {cache}"


def _token_checks(checks: TokenChecks | None) -> str:
    if checks is None:
        return ""
    same = checks.compared - checks.different
    scored = ""
    if checks.regret is not None:
        count = f"{checks.scored} of {checks.sequences or 'unknown'}"
        scored = f", {count} sequences right within {checks.regret:.1g} of {checks.regret_limit:.1g}"
    weights = ", weights not watched" if checks.weights_watched is False else ""
    return f", {same} of {checks.compared} repetitions alike{scored}{weights}"


def _neighbours(checks: NeighbourChecks | None) -> str:
    if checks is None:
        return ""
    if checks.difference == 0:
        return ", rows of a batch alike to the bit beside other rows"
    return f", rows of a batch alike within {checks.difference:.1g} of {checks.limit:.1g} beside other rows"


def _accuracy_rows(found: Accuracy) -> list[tuple[str, str]]:
    rows = [("accuracy", NONE)]
    if found.acc is not None:
        error = "" if found.acc_stderr is None else f" +- {100 * found.acc_stderr:.2f}"
        rows = [("accuracy", f"{100 * found.acc:.2f} %{error}")]
    if found.perplexity is not None:
        error = "" if found.perplexity_stderr is None else f" +- {found.perplexity_stderr:.2f}"
        rows.append(("perplexity", f"{found.perplexity:.2f}{error}"))
    shown = {"acc", "acc_stderr", "perplexity", "perplexity_stderr"}
    others = {name: value for name, value in found.metrics.items() if name not in shown and value is not None}
    rows += [(name, f"{value:.4f}") for name, value in others.items()]
    if found.reference is not None:
        rows.append(("reference", f"{found.reference.acc:.2%} ({found.reference.source})"))
    if (one := found.decision) is not None:
        known = f"a loss {one.decided} the limit" if one.decided else "no bound was crossed"
        known += f" of {one.limit_points:g} points by {one.read} of {one.total} items"
        rows.append(("decided", f"{known}: {one.gained} gained, {one.lost} lost beside {one.reference}"))
    batch = f"batch {found.batch_size}" if found.batch_size else f"batches of {found.batch_tokens} tokens"
    part = ", a part of all" if found.partial else ""
    rows.append(("items", f"{found.n}{part}, {found.items_per_s:.2f} a second, {batch}"))
    if found.tokens_per_s is not None:
        rows.append(("scoring", f"{found.tokens_per_s:.0f} tokens/s{_share_of_peak(found)}"))
    return rows


def _share_of_peak(found: Accuracy) -> str:
    padding = f", {found.padding:.1%} padding beside them" if found.padding is not None else ""
    if found.share_of_peak is None:
        return padding
    peak = f"{found.peak_tflop_per_s:.3g} TFLOP/s that this device has shown"
    return f", {found.share_of_peak:.2f} of {peak}{padding}"


def _token_times(record: Record) -> str:
    """The time of each token in milliseconds, from the iteration with the median next token latency."""
    iteration = median_iteration(record.samples)
    if iteration is None or iteration.first_token_ns is None:
        return ""
    times = [number(ns / 1e6) for ns in (iteration.first_token_ns, *(iteration.next_token_ns or ()))]
    lines = ["time of each token of the median iteration, ms"]
    for start in range(0, len(times), TOKENS_A_LINE):
        texts = (f"{time:>8}" for time in times[start : start + TOKENS_A_LINE])
        lines.append(f"  {start + 1:5d}  {'  '.join(texts)}")
    return "\n".join(lines)


def _next_commands(records: list[Record]) -> list[str]:
    """One or two commands with which a newcomer can go on."""
    done = next((record for record in records if record.status == "ok"), None)
    if done is None:
        return ["see what this machine can run: xpubench doctor"]
    subject = done.spec.subject
    model = shlex.quote(subject.model)
    if subject.weights == "dummy":
        return [f"next, what the hardware allows: xpubench plan -m {model}"]
    script = "python run_generation.py"
    if subject.tp_size > 1:
        script = f"mpirun -np {subject.tp_size} python -u run_generation_with_deepspeed.py"
    command = f"{script} -m {model} --benchmark --device {subject.device} --greedy"
    return [
        f"next, shapes in one load: {command} --input-tokens 32 128 512 --max-new-tokens 32",
        f"next, are the tokens right: {command} --reference cpu-float32",
    ]
