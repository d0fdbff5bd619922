"""Records for tests and benchmarks of what reads them: made up, of the shape that a run writes."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.catalog import PublishedAccuracy, find_model, models
from xpubench.catalog.architecture import Architecture
from xpubench.environment import DeviceFacts, Environment
from xpubench.explanation import Explanation, Ledger
from xpubench.measure.summary import SummaryInputs, summarize_run
from xpubench.plan import Plan, plan_of
from xpubench.record import (
    Accuracy,
    AccuracySummary,
    Failure,
    Item,
    Iteration,
    Record,
    RunChecks,
    Samples,
    TokenChecks,
    encode,
)
from xpubench.runtimes.registry import DEFAULT, options_class
from xpubench.spec import AccuracySpec, AccuracyTask, Protocol, RunSpec, Subject, Workload

ENVIRONMENT = msgspec.convert(
    {
        "harness": {"version": "0.1.0", "commit": "0123456789ab"},
        "python": "3.11.9",
        "platform": "Linux-6.8.0-x86_64",
        "versions": {"torch": "2.13.0+xpu", "transformers": "5.23.0", "numpy": "2.4.6"},
        "device": {
            "kind": "xpu",
            "name": "Intel(R) Data Center GPU Max 1550",
            "driver": "1.6.33578",
            "total_memory_bytes": 68_719_476_736,
            "free_memory_bytes": 68_000_000_000,
        },
        "host": {"cpu": "Intel(R) Xeon(R) Platinum 8480+", "logical_cores": 224, "load_average_1min": 0.4},
        "variables": {"ZE_FLAT_DEVICE_HIERARCHY": "FLAT"},
    },
    Environment,
)
BANDWIDTH = 1000.0
TOKENS = TokenChecks(
    compared=12, different=0, scored=2, regret=0.0, regret_limit=0.1, logits_seen=True, checks_s=1.0
)


def subject(model: str = "meta-llama/Llama-2-7b-hf", **fields: Any) -> Subject:
    """A subject in float16 on xpu; `fields` win. Among them may be `runtime` and fields of its options."""
    options = options_class(fields.pop("runtime", DEFAULT))
    own = {
        name: fields.pop(name) for name in options.__struct_fields__ if name != "device" and name in fields
    }
    known: dict[str, Any] = {"model": model, "device": "xpu", "dtype": "float16", "options": options(**own)}
    return Subject(**known | fields)


def latency_record(
    of: Subject,
    *,
    next_ms: float = 20.0,
    first_ms: float = 200.0,
    iterations: int = 6,
    new_tokens: int = 32,
    batch_size: int = 1,
    seed: int = 0,
    **fields: Any,
) -> Record:
    """A run that went well, with 1% of noise; its weights are what 60% of 1,000 GB/s read in `next_ms`."""
    source = random.Random(seed)

    def noisy(milliseconds: float) -> int:
        return int(milliseconds * 1e6 * source.gauss(1, 0.01))

    rows = []
    for _ in range(iterations):
        first, following = noisy(first_ms), [noisy(next_ms) for _ in range(new_tokens - 1)]
        whole = first + sum(following)
        rows += [
            Iteration(
                sync_policy="every_token", first_token_ns=first, next_token_ns=following, end_to_end_ns=whole
            ),
            Iteration(sync_policy="end_to_end", first_token_ns=None, next_token_ns=None, end_to_end_ns=whole),
        ]
    samples = Samples(iterations=rows)
    step_bytes = int(0.6 * BANDWIDTH * 1e6 * next_ms)
    summary, warnings = summarize_run(
        samples,
        SummaryInputs(
            batch_size=batch_size,
            input_tokens=1024,
            new_tokens=new_tokens,
            load_s=12.5,
            step_bytes=step_bytes,
            bandwidth_measured_gb_per_s=BANDWIDTH,
            bandwidth_datasheet_gb_per_s=1638.4,
            peak_device_bytes=15_000_000_000,
            peak_host_bytes=2_000_000_000,
        ),
    )
    spec = RunSpec(
        subject=of,
        workload=Workload(input_tokens=1024, new_tokens=new_tokens, batch_size=batch_size),
        protocol=Protocol(),
    )
    return _record(
        spec,
        {
            "samples": samples,
            "summary": summary,
            "warnings": warnings,
            "runtime": type(of.options).description(weight_bytes=step_bytes),
            "plan": _plan(spec),
            "checks": RunChecks(
                new_tokens=new_tokens, logits_finite=True, validation="validated", tokens=TOKENS
            ),
        }
        | fields,
    )


def ledger(
    token: Literal["first", "next"],
    milliseconds: dict[str, float],
    *,
    refused: str | None = None,
    **fields: Any,
) -> Ledger:
    """A ledger of these parts in ms, which sum to the token's time unless `fields` say otherwise."""
    parts = [{"name": name, "ns": 1e6 * ms} for name, ms in milliseconds.items()]
    known = {"token": token, "wall_ns": 1e6 * sum(milliseconds.values()), "parts": parts, "refused": refused}
    return msgspec.convert(known | fields, Ledger)


def explained(
    record: Record, next_token: Ledger | None, first: Ledger | None = None, **fields: Any
) -> Record:
    """The record with the ledgers of its tokens; `fields` are others of its explanation."""
    found = Explanation(**{"method": "made up", "first": first, "next": next_token} | fields)
    return msgspec.structs.replace(record, explanation=found)


def on_device(record: Record, name: str, *, kind: str = "xpu", driver: str | None = "1.6") -> Record:
    """The record as it were from a device of that name."""
    device = DeviceFacts(kind=kind, name=name, driver=driver)
    environment = msgspec.structs.replace(record.environment, device=device)
    return msgspec.structs.replace(record, environment=environment)


def round_of(
    directory: Path,
    number: int,
    *,
    of: Subject | None = None,
    slow: float = 1.0,
    second: bool = False,
    changed: Callable[[Record], Record] = lambda record: record,
    **fields: Any,
) -> Record:
    """A round of a run that was so slow, written where a suite does, after a change. The `second` run of a
    round was made five minutes after the first, and the next round follows after ten."""
    made = latency_record(
        of or subject(),
        next_ms=20.0 * slow,
        first_ms=200.0 * slow,
        seed=2 * number + second,
        created=f"2026-11-20T{10 + number // 6:02}:{number % 6}{5 if second else 0}:00Z",
        **fields,
    )
    record = changed(made)
    write(directory / f"round-{number}", record)
    return record


def accuracy_record(
    of: Subject,
    *,
    acc: float = 0.74,
    reference: float | None = 0.739,
    items: int = 50,
    task: str = "lambada_openai",
    **fields: Any,
) -> Record:
    """A run of a LAMBADA task with so many items right."""
    right = round(acc * items)
    found = Accuracy(
        task=task,
        task_version="1.0",
        acc=right / items,
        acc_stderr=(acc * (1 - acc) / items) ** 0.5,
        perplexity=3.4,
        perplexity_stderr=0.1,
        n=items,
        partial=False,
        metrics={"acc": right / items},
        items=[Item(id=index, loglikelihood=-1.0, correct=index < right) for index in range(items)],
        items_per_s=50.0,
        truncated=0,
        batch_tokens=8192,
        batch_size=None,
        padding_side="right",
        scores_rows_alone=True,
        lm_eval_version="0.4.13",
        reference=None
        if reference is None
        else PublishedAccuracy(acc=reference, n=5153, source="a model card"),
    )
    spec = AccuracySpec(subject=of, task=AccuracyTask(name=task))
    summary = AccuracySummary(peak_device_bytes=15_000_000_000, load_s=12.5)
    return _record(spec, {"accuracy": found, "summary": summary} | fields)


def failed(record: Record, failure_class: Any, message: str, log_tail: str = "") -> Record:
    """The record as it were had the run failed at its end: with the samples and answers so far."""
    return msgspec.structs.replace(
        record,
        status=failure_class,
        failure=Failure(failure_class=failure_class, message=message, log_tail=log_tail),
        summary=None,
        warnings=[],
    )


def write(directory: Path, record: Record, name: str | None = None) -> Path:
    """The record as a file of the directory, named by its id."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name or record.id}.json"
    path.write_bytes(encode(record))
    return path


def write_changed(directory: Path, record: Record, name: str, change: Any) -> Path:
    """The record's JSON after `change(data)`."""
    data = json.loads(encode(record))
    change(data)
    path = write(directory, record, name)
    path.write_text(json.dumps(data))
    return path


def many(count: int, new_tokens: int = 128, iterations: int = 10) -> Iterator[Record]:
    """So many records over the catalog's models, two runtimes, three precisions and many shapes; one in
    twenty failed and one in ten is of accuracy."""
    names = [one.id for one in models()]
    dtypes = ("float16", "bfloat16", "float32")
    source = random.Random(1)
    template = {
        dtype: latency_record(subject(dtype=dtype), new_tokens=new_tokens, iterations=iterations)
        for dtype in dtypes
    }
    for index in range(count):
        of = subject(
            names[index % len(names)],
            dtype=dtypes[index // len(names) % 3],
            runtime=("pytorch", "ipex")[index % 2],
        )
        made = f"2026-{1 + index % 12:02}-{1 + index % 28:02}T{index % 24:02}:{index % 60:02}:00Z"
        if index % 10 == 9:
            yield accuracy_record(of, acc=source.uniform(0.6, 0.8), created=made, id=f"{index:016x}")
            continue
        like = template[of.dtype]
        record = _varied(like, of, source, index, made)
        if index % 20 == 10:
            record = failed(
                record, ("oom", "crash", "timeout")[index % 3], f"it ended at {index}", "line\n" * 20
            )
        yield record


def _varied(like: Record, of: Subject, source: random.Random, index: int, made: str) -> Record:
    assert isinstance(like.spec, RunSpec)
    factor = source.uniform(0.5, 3)

    def scaled(one: Iteration) -> Iteration:
        return msgspec.structs.replace(
            one,
            first_token_ns=one.first_token_ns and int(one.first_token_ns * factor),
            next_token_ns=one.next_token_ns
            and [int(ns * factor * source.gauss(1, 0.01)) for ns in one.next_token_ns],
            end_to_end_ns=int(one.end_to_end_ns * factor),
        )

    assert like.latency is not None
    workload = msgspec.structs.replace(like.spec.workload, input_tokens=32 + index % 2000)
    mbu = (like.latency.mbu_measured or 0) / factor
    following = like.latency.next_token_ms
    assert following is not None
    median = following.median * factor
    return msgspec.structs.replace(
        like,
        id=f"{index:016x}",
        created=made,
        spec=msgspec.structs.replace(like.spec, subject=of, workload=workload),
        samples=Samples(iterations=[scaled(one) for one in like.samples.iterations]),
        summary=msgspec.structs.replace(
            like.latency,
            mbu_measured=mbu,
            input_tokens=32 + index % 2000,
            next_token_ms=msgspec.structs.replace(
                following, median=median, ci95=(median * 0.99, median * 1.01)
            ),
        ),
        warnings=[f"next token: coefficient of variation {source.uniform(5, 20):.1f}%"]
        if index % 4 == 0
        else [],
    )


def _plan(spec: RunSpec) -> Plan | None:
    known = find_model(spec.subject.model)
    return None if known is None else plan_of(Architecture.from_config(known.config()), spec, None)


def _record(spec: RunSpec | AccuracySpec, fields: dict[str, Any]) -> Record:
    known: dict[str, Any] = {
        "id": spec.id,
        "created": "2026-11-20T10:00:00Z",
        "spec": spec,
        "environment": ENVIRONMENT,
        "status": "ok",
    }
    return Record(**known | fields)
