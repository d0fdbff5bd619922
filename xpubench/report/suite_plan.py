"""What a suite would run: memory, roofline and time of each run, without loading anything."""

from pathlib import Path

from xpubench.catalog import find_model
from xpubench.catalog.architecture import Architecture
from xpubench.errors import UserError
from xpubench.plan import make_plan
from xpubench.record import Record, ResultsDirectory, now, read_record
from xpubench.report.console import title_of
from xpubench.report.tables import plain_console, plain_table
from xpubench.spec import RunSpec
from xpubench.suite import Job, Spec, wanted


def print_plan(jobs: list[Job], directory: Path, rounds: int) -> None:
    """A table of the runs, the finished ones with the time that they took."""
    console = plain_console()
    table = plain_table("run", "weights, GB", "KV cache, GB", "step, GB", "took, s", "state")
    seconds: list[float] = []
    pending = 0
    for job in jobs:
        for spec in job.specs:
            record = _done(directory, spec)
            took = None if record is None else _seconds(record)
            if took is not None:
                seconds.append(took)
            state = "done" if record is not None else "to run"
            pending += record is None
            table.add_row(_title(spec), *_memory(spec), "–" if took is None else f"{took:.0f}", state)
    console.print(table)
    total = sum(len(job.specs) for job in jobs)
    console.print(
        f"{total} runs in {len(jobs)} processes, {rounds} round(s); {pending} to run in {directory}"
    )
    if seconds:
        estimate = pending * sum(seconds) / len(seconds)
        console.print(f"time: about {estimate:.0f} s a round, at the mean of the {len(seconds)} done")
    else:
        console.print("time: not known before a first run is done")


def _done(directory: Path, spec: Spec) -> Record | None:
    if not directory.is_dir():
        return None
    results = ResultsDirectory(directory)
    return None if wanted(results, spec, None) else read_record(results.record_path(spec.id))


def _title(spec: Spec) -> str:
    return title_of(Record(id=spec.id, created=now(), spec=spec, environment={}, status="ok"))


def _seconds(record: Record) -> float | None:
    """The time of a run: its load and its generations, or its items."""
    if record.accuracy is not None:
        return record.accuracy.n / record.accuracy.items_per_s if record.accuracy.items_per_s else None
    if record.summary is None:
        return None
    samples = [*record.samples.warmup, *record.samples.iterations]
    return record.summary.load_s + sum(one.end_to_end_ns for one in samples) / 1e9


def _memory(spec: Spec) -> tuple[str, str, str]:
    known = find_model(spec.subject.model)
    if known is None or not isinstance(spec, RunSpec) or spec.workload.input_tokens is None:
        return "–", "–", "–"
    try:
        architecture = Architecture.from_config(known.config())
    except UserError:
        return "–", "–", "–"
    plan = make_plan(
        architecture,
        model=spec.subject.model,
        dtype=spec.subject.dtype,
        batch_size=spec.workload.batch_size,
        num_beams=spec.workload.num_beams,
        input_tokens=spec.workload.input_tokens,
        new_tokens=spec.workload.new_tokens,
        device=None,
        quantization=spec.subject.quantization,
    )
    sizes = (plan.weight_bytes, plan.kv_cache_bytes, plan.step_bytes)
    return f"{sizes[0] / 1e9:.2f}", f"{sizes[1] / 1e9:.2f}", f"{sizes[2] / 1e9:.2f}"
