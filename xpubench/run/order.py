"""What one process is to run, as data, and the running of it."""

import contextlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import msgspec

from xpubench.catalog import SMOLLM2
from xpubench.environment import Environment
from xpubench.failures import classify, failed_record
from xpubench.progress import Progress
from xpubench.record import Record
from xpubench.results import ResultsDirectory
from xpubench.spec import AccuracySpec, RunSpec

Spec = RunSpec | AccuracySpec
RANKS_TIMEOUT_S = 1800


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs of one subject: latency runs only, or accuracy runs only.

    `results` is the results directory. `reference`, with the limits `max_kl` (nats) and `min_agreement`,
    `profile_name`, `explain` and the `depths` of the next token's curve are those of a latency run; an
    accuracy run that ends when it is decided has a `reference` too. With `save_model`, the subject is
    quantized into that directory first and then runs from there.
    `ranks` is the number of processes that share the model, None without a launcher; `ranks_timeout_s` is how
    long they wait for each other, in seconds. `python` is the interpreter of the worker, None for this
    process's, and `variables` are set in its environment.
    """

    specs: list[Spec]
    results: str
    reference: str | None = None
    max_kl: float | None = None
    min_agreement: float | None = None
    profile_name: str | None = None
    explain: bool = False
    depths: list[int] = []
    save_model: str | None = None
    ranks: int | None = None
    ranks_timeout_s: int = RANKS_TIMEOUT_S
    python: str | None = None
    variables: dict[str, str] = {}


def perform(order: Order, progress: Progress) -> Iterator[Record]:
    """Runs the specs in this process and yields each record when it is written.

    An interruption ends all, and the run that was at work has a record of it unless it has an earlier one.
    Raises UserError for what cannot be done as asked.
    """
    results = ResultsDirectory(Path(order.results))
    done: set[str] = set()
    try:
        _tell_ranks(order, done)
        with contextlib.closing(_records(order, results, progress)) as records:
            for record in records:
                done.add(record.id)
                _tell_ranks(order, done)
                yield record
    except KeyboardInterrupt:
        at_work = _at_work(order, done)
        interrupted = None if at_work is None else write_interrupted(results, at_work)
        if interrupted is None:
            raise
        yield interrupted


def _at_work(order: Order, done: set[str]) -> Spec | None:
    return next((spec for spec in order.specs if spec.id not in done), None)


def _tell_ranks(order: Order, done: set[str]) -> None:
    """Has the death of a rank count as a failure of the run at work alone."""
    if order.ranks is not None:
        from xpubench.distributed import rendezvous

        at_work = _at_work(order, done)
        rendezvous.current().set_at_work(None if at_work is None else at_work.id)


def write_interrupted(results: ResultsDirectory, spec: Spec) -> Record | None:
    """Writes and returns the record of a run that was interrupted before it had one; None where the run has
    a record already, which stays."""
    if results.stamp_of(spec.id) is not None:
        return None
    record = failed_record(spec, Environment(), classify(KeyboardInterrupt(), spec.subject.device))
    results.write(record)
    return record


def set_variables(order: Order) -> None:
    """Sets what libraries read when they are imported: the variables of the runtime for an accuracy run or
    one that is explained, and for an accuracy run that needs nothing from the hub that it is not asked."""
    options = order.specs[0].subject.options
    scored = isinstance(order.specs[0], AccuracySpec)
    wanted = options.scoring_variables if scored else options.explaining_variables if order.explain else {}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    if not all(isinstance(spec, AccuracySpec) and spec.task.data is not None for spec in order.specs):
        return
    model = order.specs[0].subject.model
    if model.lower() == SMOLLM2 or Path(model).expanduser().is_dir():
        from xpubench.accuracy.tasks import stay_offline

        stay_offline()


def _records(order: Order, results: ResultsDirectory, progress: Progress) -> Generator[Record]:
    set_variables(order)
    specs = order.specs
    if order.save_model is not None:
        specs = _saved(specs, Path(order.save_model), progress)
    if isinstance(specs[0], AccuracySpec):
        from xpubench.run import accuracy

        yield from accuracy.run(cast("list[AccuracySpec]", specs), results, progress, order.reference)
        return
    from xpubench.run import latency

    yield from latency.run(
        cast("list[RunSpec]", specs),
        results,
        progress,
        reference=order.reference,
        max_kl=order.max_kl,
        min_agreement=order.min_agreement,
        profile_name=order.profile_name,
        explain=order.explain,
        depths=order.depths,
    )


def _saved(specs: list[Spec], directory: Path, progress: Progress) -> list[Spec]:
    """Quantizes into the directory, and returns the specs of runs from there."""
    from xpubench.run.quantize import save_quantized

    subject = specs[0].subject
    save_quantized(subject, directory, progress, with_errors=False)
    assert subject.quantization is not None
    recipe = msgspec.structs.replace(subject.quantization, checkpoint=str(directory))
    saved = msgspec.structs.replace(subject, quantization=recipe)
    return [msgspec.structs.replace(spec, subject=saved) for spec in specs]
