"""Accuracy specs of one subject to records: load once, run lm-eval, keep each item."""

import math
from collections.abc import Iterator
from importlib.metadata import version
from statistics import fmean, stdev
from typing import Any

import msgspec

from xpubench.accuracy.lm import RuntimeLM, Scored
from xpubench.accuracy.tasks import loadable, task_manager
from xpubench.catalog import find_model, status_of
from xpubench.errors import RunFailure, UserError
from xpubench.failures import classify, failed_record, write_failures
from xpubench.measure.device import free_memory_bytes
from xpubench.measure.environment import capture
from xpubench.measure.memory import peak_device_bytes, peak_host_bytes, reset_peaks
from xpubench.plan import activation_bytes
from xpubench.record import Accuracy, Item, Record, ResultsDirectory, now
from xpubench.runtimes.base import Runtime
from xpubench.session import Ground, Progress, fetch, load, quantization_warnings, survey
from xpubench.spec import DTYPE_BYTES, AccuracySpec

# lm-eval bootstraps some standard errors in forked processes, which hang beside torch's threads. Those of
# accuracy and perplexity are taken from the items here.
NO_BOOTSTRAP = 0
# Of the free memory, for the activations of a batch; and where more tokens at a time gain nothing.
MEMORY_SHARE = 0.25
MOST_TOKENS = {"cpu": 1024, "cuda": 32768, "xpu": 32768}
LARGE_GAP = 1.96
NO_METRICS = ("sample_len", "sample_count")


def run(specs: list[AccuracySpec], results: ResultsDirectory, progress: Progress) -> Iterator[Record]:
    """Runs the tasks of one subject, which is loaded once, and yields each record when it is written.

    An interruption keeps the items that were done. Raises UserError for what cannot be done as asked.
    """
    subject = specs[0].subject
    if subject.weights == "dummy":
        raise UserError("accuracy means nothing with --dummy-weights; leave one of the two out")
    try:
        ground = survey(subject)
    except RunFailure as failure:
        yield from write_failures(results, specs, capture(subject.device), failure, {})
        return
    manager = task_manager([spec.task for spec in specs])
    try:
        fetch(subject, progress)
        runtime, load_s = load(subject, progress)
    except UserError:
        raise
    except BaseException as error:
        yield from write_failures(results, specs, ground.environment, error, {})
        return
    try:
        for spec in specs:
            record = _evaluated(runtime, spec, ground, load_s, manager, progress)
            results.write(record)
            yield record
            if record.status == "interrupted":
                return
    finally:
        runtime.close()


def _evaluated(
    runtime: Runtime, spec: AccuracySpec, ground: Ground, load_s: float, manager: Any, progress: Progress
) -> Record:
    limit = ground.architecture.max_positions if ground.architecture else None
    lm = RuntimeLM(
        runtime,
        limit or ground.config.get("max_position_embeddings"),
        progress,
        batch_size=spec.task.batch_size,
        budget=token_budget(spec, ground),
    )
    reset_peaks(spec.subject.device)
    try:
        found = _simple_evaluate(lm, spec, manager)
    except UserError:
        raise
    except BaseException as error:
        failed = failed_record(spec, ground.environment, classify(error, spec.subject.device), None)
        items = [_item(scored) for scored in lm.done]
        partial = _accuracy(runtime, lm, spec, items, {}, "") if items else None
        return msgspec.structs.replace(failed, accuracy=partial)
    accuracy = _of_results(runtime, lm, spec, found)
    if failure := numerics(accuracy):
        failed = failed_record(spec, ground.environment, classify(failure, spec.subject.device), None)
        return msgspec.structs.replace(failed, accuracy=accuracy)
    status = status_of(spec.subject.model, ground.config.get("model_type"))
    return Record(
        id=spec.id,
        created=now(),
        spec=spec,
        environment=ground.environment,
        status="ok",
        runtime=runtime.describe() | {"load_s": load_s},
        checks={
            "validation": status,
            "peak_device_bytes": peak_device_bytes(spec.subject.device),
            "peak_host_bytes": peak_host_bytes(),
        },
        accuracy=accuracy,
        warnings=[*_warnings(accuracy), *quantization_warnings(spec.subject, runtime)],
    )


def token_budget(spec: AccuracySpec, ground: Ground) -> int:
    """Tokens of a batch: what a quarter of the free memory holds of activations, up to the device's most."""
    most = MOST_TOKENS[spec.subject.device]
    free = free_memory_bytes(spec.subject.device)
    if free is None or ground.architecture is None:
        return most
    one = activation_bytes(ground.architecture, 1, 1, DTYPE_BYTES[spec.subject.dtype])
    return max(1, min(most, int(MEMORY_SHARE * free / one)))


def _simple_evaluate(lm: RuntimeLM, spec: AccuracySpec, manager: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    task = spec.task
    try:
        found: dict[str, Any] = simple_evaluate(
            model=lm,
            tasks=[loadable(task)],
            num_fewshot=task.num_fewshot,
            limit=task.limit,
            bootstrap_iters=NO_BOOTSTRAP,
            log_samples=True,
            task_manager=manager,
        )
    except (ConnectionError, FileNotFoundError) as error:
        raise UserError(
            f"the data of {task.name} are not on this machine and the hub is out of reach; "
            "--acc-data FILE.jsonl gives those of the LAMBADA tasks"
        ) from error
    return found


def _of_results(runtime: Runtime, lm: RuntimeLM, spec: AccuracySpec, found: dict[str, Any]) -> Accuracy:
    name = spec.task.name
    values = found["results"].get(name) or next(iter(found["results"].values()))
    metrics = {
        key.removesuffix(",none"): float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and key not in NO_METRICS
    }
    items = [_item_of_sample(sample) for samples in found["samples"].values() for sample in samples]
    task_version = str(next(iter(found["versions"].values()), ""))
    return _accuracy(runtime, lm, spec, items, metrics, task_version)


def _accuracy(
    runtime: Runtime,
    lm: RuntimeLM,
    spec: AccuracySpec,
    items: list[Item],
    metrics: dict[str, float],
    task_version: str,
) -> Accuracy:
    items = sorted(items, key=lambda item: item.id)
    correct = [float(item.correct) for item in items if item.correct is not None]
    acc = metrics.get("acc", fmean(correct) if correct else None)
    losses = [-item.loglikelihood for item in items if item.loglikelihood is not None]
    perplexity = math.exp(fmean(losses)) if losses and max(losses) < 700 else None
    return Accuracy(
        task=spec.task.name,
        task_version=task_version,
        acc=acc,
        acc_stderr=metrics.get("acc_stderr", _stderr(correct)),
        perplexity=perplexity,
        # The delta method: d exp(x) = exp(x) dx.
        perplexity_stderr=perplexity * (_stderr(losses) or 0.0) if perplexity is not None else None,
        n=len(items),
        # Without a version, lm-eval did not come to its end.
        partial=not task_version or (spec.task.limit is not None and len(items) >= spec.task.limit),
        metrics=metrics,
        items=items,
        items_per_s=len(lm.done) / lm.seconds if lm.seconds else 0.0,
        truncated=lm.truncated,
        batch_tokens=None if spec.task.batch_size else lm.budget,
        batch_size=spec.task.batch_size or None,
        padding_side="right",
        scores_rows_alone=getattr(runtime, "scores_rows_alone", False),
        lm_eval_version=version("lm-eval"),
        reference=_reference(spec),
    )


def _item(scored: Scored) -> Item:
    return Item(id=scored.doc_id, loglikelihood=scored.loglikelihood, correct=scored.greedy)


def _item_of_sample(sample: dict[str, Any]) -> Item:
    """An item of lm-eval's log. Of several choices, the right one's log-likelihood is kept."""
    answers = [response[0] for response in sample["resps"]]
    choice = sample["target"] if len(answers) > 1 and isinstance(sample["target"], int) else 0
    answer = answers[choice] if 0 <= choice < len(answers) else None
    loglikelihood = answer[0] if isinstance(answer, tuple | list) else None
    correct = next((sample[name] for name in ("acc", "exact_match") if name in sample), None)
    return Item(
        id=int(sample["doc_id"]),
        loglikelihood=None if loglikelihood is None else float(loglikelihood),
        correct=None if correct is None else bool(correct),
    )


def _stderr(values: list[float]) -> float | None:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def numerics(accuracy: Accuracy) -> RunFailure | None:
    """The failure of a run whose log-likelihoods are no numbers, or that has nothing right on all items."""
    values = [item.loglikelihood for item in accuracy.items if item.loglikelihood is not None]
    if any(not math.isfinite(value) for value in values):
        return RunFailure("numerics", f"NaN or infinite log-likelihoods on {accuracy.task}")
    if accuracy.acc == 0 and not accuracy.partial:
        return RunFailure("numerics", f"accuracy 0 on all {accuracy.n} items of {accuracy.task}")
    return None


def _reference(spec: AccuracySpec) -> dict[str, Any] | None:
    known = find_model(spec.subject.model)
    return known.accuracy.get(spec.task.name) if known else None


def _warnings(accuracy: Accuracy) -> list[str]:
    warnings = []
    if accuracy.partial:
        warnings.append(f"a partial run: the first {accuracy.n} items of {accuracy.task}")
    if accuracy.acc == 0:
        warnings.append("accuracy 0")
    if accuracy.truncated:
        warnings.append(f"{accuracy.truncated} items were longer than the model takes and cut from the left")
    if not accuracy.scores_rows_alone:
        warnings.append("head and body cannot be told apart: all positions' logits were computed")
    reference = accuracy.reference
    if reference is not None and accuracy.acc is not None and accuracy.acc_stderr:
        expected = reference["acc"]
        noise = math.hypot(accuracy.acc_stderr, math.sqrt(expected * (1 - expected) / reference["n"]))
        if abs(accuracy.acc - expected) > LARGE_GAP * noise:
            warnings.append(
                f"accuracy {accuracy.acc:.2%} is {abs(accuracy.acc - expected) * 100:.1f} points from the "
                f"reference's {expected:.2%} ({reference['source']}), beyond noise"
            )
    return warnings
