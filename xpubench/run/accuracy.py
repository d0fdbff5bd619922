"""From accuracy specs of one subject to records: load once, run lm-eval, keep each item."""

import math
from collections.abc import Iterator
from importlib.metadata import version
from statistics import fmean, stdev
from typing import Any

import msgspec

from xpubench.accuracy.check import check_weights
from xpubench.accuracy.decided import Decided, Reference
from xpubench.accuracy.items import RIGHT, answered, answered_so_far, logged
from xpubench.accuracy.length import longest_text
from xpubench.accuracy.lm import RuntimeLM
from xpubench.accuracy.tasks import SMOKE, load_tasks
from xpubench.catalog import TEST_SETS, PublishedAccuracy, find_model, status_of
from xpubench.errors import RunFailure, UserError
from xpubench.measure.host import peak_host_bytes
from xpubench.plan import activation_bytes, lack_of_memory
from xpubench.progress import Progress
from xpubench.record import Accuracy, AccuracySummary, Item, MatrixPeak, Record, RunChecks, now
from xpubench.results import ResultsDirectory
from xpubench.run.session import Facts, Session
from xpubench.spec import DTYPE_BYTES, AccuracySpec

# lm-eval bootstraps some standard errors in forked processes, which hang beside torch's threads. Those of
# accuracy and perplexity are computed here from the items.
NO_BOOTSTRAP = 0
# The share of the free memory that the activations of a batch may take, and the number of tokens beyond
# which a larger batch gains nothing.
MEMORY_SHARE = 0.25
MOST_TOKENS = {"cpu": 1024, "cuda": 32768, "xpu": 32768, "npu": 32768}
LARGE_GAP = 1.96
LARGEST_EXPONENT = 700.0
NO_METRICS = ("sample_len", "sample_count")


def run(
    specs: list[AccuracySpec], results: ResultsDirectory, progress: Progress, reference: str | None = None
) -> Iterator[Record]:
    """Runs the tasks of one subject, which is loaded once, and yields each record when it is written; a group
    or a tag has one record for each of its tasks. `reference` is the path of the record against which a
    single task with `until_decided` is decided.

    An interruption keeps the finished items. Raises UserError for what cannot be done as asked.
    """
    if specs[0].subject.weights == "dummy":
        raise UserError("accuracy means nothing with --dummy-weights; leave one of the two out")
    with Session(specs, results, progress) as session:
        try:
            with session.downloads():
                tasks, groups = load_tasks(specs)
            session.specs = [spec for spec, _ in tasks.values()]
            known = _reference_of(list(tasks.values()), reference)
            session.check()
            facts = session.facts
            if lack := lack_of_memory(facts.architecture, session.subject, None, facts.available_bytes):
                raise lack
            if reason := session.subject.options.hides_logits:
                raise RunFailure("unsupported", reason)
            session.fetch()
            if known is not None:
                check_weights(reference, session.fingerprint)
            session.progress.say(f"measuring the matrix products of {session.subject.device}")
            peak = facts.device.matrix_peak(session.subject.dtype)
            session.load()
            if session.generator.elsewhere is not None:
                peak = None
        except BaseException as error:
            yield from session.fail_all(error)
            return
        for spec, task in tasks.values():
            record = session.write(_evaluated(session, spec, task, known, peak))
            yield record
            if record.status == "interrupted":
                return
        for group, ids in groups.items():
            results.write_tasks(group, ids)


def _reference_of(tasks: list[tuple[AccuracySpec, Any]], path: str | None) -> Reference | None:
    spec, task = tasks[0]
    if not spec.task.until_decided:
        return None
    if len(tasks) > 1:
        raise UserError(f"--until-decided has one reference, and these are {len(tasks)} tasks; name one")
    if path is None:
        raise UserError("--until-decided needs --reference RECORD, an accuracy record of the same task")
    return Reference(path, spec, str(task.VERSION))


def _evaluated(
    session: Session[AccuracySpec],
    spec: AccuracySpec,
    task: Any,
    known: Reference | None,
    peak: MatrixPeak | None,
) -> Record:
    facts, generator = session.facts, session.generator
    scored_alone = type(spec.subject.options).scored_alone
    lm = RuntimeLM(
        generator,
        longest_text(facts.config, generator.vocabulary.tokenizer),
        session.progress,
        batch_size=1 if facts.config.get("model_type") in scored_alone else spec.task.batch_size,
        budget=token_budget(spec, facts),
    )
    facts.device.reset_peaks()
    if known is not None:
        lm.seed, lm.look = spec.task.seed, lambda: _look(lm, task, known)
    try:
        accuracy = _of_results(lm, spec, task, _simple_evaluate(lm, spec, task))
    except Decided:
        items = answered(task, lm.done)
        accuracy = _accuracy(lm, spec, task, items, {}, partial=True)
        accuracy = msgspec.structs.replace(accuracy, task_version=str(task.VERSION))
    except BaseException as error:
        (failed,) = session.failed(error, [spec])
        if not (items := answered(task, lm.done)):
            return failed
        accuracy = _accuracy(lm, spec, task, items, {}, partial=True)
        which = ", the longest ones: no sample of the task" if known is None else ""
        warning = f"the run ended after {accuracy.n} items{which}"
        return msgspec.structs.replace(failed, accuracy=accuracy, warnings=[warning, *_warnings(accuracy)])
    if known is not None:
        correct = {item.id: item.correct for item in accuracy.items}
        accuracy = msgspec.structs.replace(accuracy, decision=known.decision(lm.drawn, correct))
    accuracy = _with_rates(accuracy, lm, spec, facts, peak)
    if failure := numerics(accuracy):
        (failed,) = session.failed(failure, [spec])
        return msgspec.structs.replace(failed, accuracy=accuracy)
    partial = f"a partial run: the first {accuracy.n} items of {accuracy.task}"
    if (decision := accuracy.decision) is not None and decision.read < decision.total:
        partial += f" in the order of seed {spec.task.seed}, which decide"
    return Record(
        id=spec.id,
        created=now(),
        spec=spec,
        environment=session.environment,
        fingerprint=session.fingerprint,
        status="ok",
        summary=AccuracySummary(
            peak_device_bytes=facts.device.peak_bytes(),
            peak_host_bytes=peak_host_bytes(),
            load_s=session.loaded.load_s,
        ),
        runtime=generator.describe(),
        checks=RunChecks(validation=status_of(spec.subject.model, facts.config.get("model_type"))),
        accuracy=accuracy,
        peak=peak,
        warnings=[*([partial] if accuracy.partial else []), *_warnings(accuracy), *generator.doubts()],
    )


def _with_rates(
    accuracy: Accuracy, lm: RuntimeLM, spec: AccuracySpec, facts: Facts, peak: MatrixPeak | None
) -> Accuracy:
    """The accuracy with the rates at which its texts were scored."""
    if not lm.work.tokens or not lm.seconds:
        return accuracy
    share, highest = None, peak.highest_tflop_per_s if peak else None
    if facts.architecture is not None and highest:
        flop = lm.work.flop(facts.architecture.part(spec.subject.tp_size))
        share = flop / lm.seconds / (highest * 1e12)
    return msgspec.structs.replace(
        accuracy,
        tokens_per_s=lm.work.tokens / lm.seconds,
        padding=lm.work.padding,
        share_of_peak=share,
        peak_tflop_per_s=highest,
    )


def _look(lm: RuntimeLM, task: Any, known: Reference) -> None:
    """Raises Decided as soon as the answered items decide."""
    known.check_items(lm.drawn)
    correct = {item.id: item.correct for item in answered_so_far(task, lm.done)}
    if None in correct.values():
        raise RunFailure("unsupported", "the task's items are neither right nor wrong")
    if known.decision(lm.drawn, correct).decided:
        raise Decided


def token_budget(spec: AccuracySpec, facts: Facts) -> int:
    """Tokens of a batch: as many as a quarter of the free memory holds activations of, up to MOST_TOKENS."""
    most = MOST_TOKENS[spec.subject.device]
    free = facts.device.facts().free_memory_bytes
    if free is None or facts.architecture is None:
        return most
    one = activation_bytes(facts.architecture, 1, 1, DTYPE_BYTES[spec.subject.dtype])
    return max(1, min(most, int(MEMORY_SHARE * free / one)))


def _simple_evaluate(lm: RuntimeLM, spec: AccuracySpec, task: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found: dict[str, Any] = simple_evaluate(
        model=lm,
        tasks=[task],
        num_fewshot=spec.task.num_fewshot,
        limit=spec.task.limit,
        bootstrap_iters=NO_BOOTSTRAP,
        log_samples=True,
        task_manager=TaskManager(include_defaults=False),
    )
    return found


def _of_results(lm: RuntimeLM, spec: AccuracySpec, task: Any, found: dict[str, Any]) -> Accuracy:
    name = spec.task.name
    metrics: dict[str, float | None] = {
        key.removesuffix(",none"): float(value)
        for key, value in found["results"][name].items()
        if isinstance(value, int | float) and key not in NO_METRICS
    }
    samples, count = found["samples"][name], found["n-samples"][name]
    accuracy = _accuracy(
        lm, spec, task, logged(task, samples), metrics, partial=count["effective"] < count["original"]
    )
    # The metrics of the items' filter have its name at the end of theirs.
    suffix = "" if samples[0]["filter"] == "none" else f",{samples[0]['filter']}"
    own = next((metrics[name + suffix] for name in RIGHT if name + suffix in metrics), accuracy.acc)
    task_version = str(found["versions"].get(name, ""))
    return msgspec.structs.replace(accuracy, acc=own, task_version=task_version, reference=_reference(spec))


def _accuracy(
    lm: RuntimeLM,
    spec: AccuracySpec,
    task: Any,
    items: list[Item],
    metrics: dict[str, float | None],
    *,
    partial: bool,
) -> Accuracy:
    items = sorted(items, key=lambda item: item.id)
    correct = [float(item.correct) for item in items if item.correct is not None]
    losses = [-item.loglikelihood for item in items if item.loglikelihood is not None]
    mean, spread = fmean(losses) if losses else math.inf, _stderr(losses)
    has_perplexity = task.OUTPUT_TYPE == "loglikelihood" and mean < LARGEST_EXPONENT
    perplexity = math.exp(mean) if has_perplexity else None
    return Accuracy(
        task=spec.task.name,
        task_version="",
        acc=fmean(correct) if correct else None,
        acc_stderr=_stderr(correct),
        perplexity=perplexity,
        # The delta method: d exp(x) = exp(x) dx.
        perplexity_stderr=None if perplexity is None or spread is None else perplexity * spread,
        n=len(items),
        partial=partial,
        metrics=metrics,
        items=items,
        items_per_s=len(items) / lm.seconds if lm.seconds else 0.0,
        truncated=lm.truncated,
        batch_tokens=None if lm.batch_size else lm.budget,
        batch_size=lm.batch_size or None,
        padding_side="right",
        scores_rows_alone=lm.scorer.scores_rows_alone,
        lm_eval_version=version("lm-eval"),
    )


def _stderr(values: list[float]) -> float | None:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return stdev(values) / math.sqrt(len(values))


def numerics(accuracy: Accuracy) -> RunFailure | None:
    """The failure of a run with a log-likelihood that is no number, or with no right item in a whole task."""
    values = [item.loglikelihood for item in accuracy.items if item.loglikelihood is not None]
    if any(not math.isfinite(value) for value in values):
        return RunFailure("numerics", f"NaN or infinite log-likelihoods on {accuracy.task}")
    for name, metric in accuracy.metrics.items():
        if metric is not None and not math.isfinite(metric):
            return RunFailure("numerics", f"{name} of {accuracy.task} is {metric}")
    if accuracy.acc == 0 and not accuracy.partial:
        return RunFailure("numerics", f"accuracy 0 on all {accuracy.n} items of {accuracy.task}")
    return None


def _reference(spec: AccuracySpec) -> PublishedAccuracy | None:
    """The catalog's accuracy, which was measured on the whole test set without few-shot examples."""
    task, known = spec.task, find_model(spec.subject.model)
    same_data = task.name == SMOKE or task.data_sha256 in (None, TEST_SETS.get(task.name))
    return known.accuracy.get(task.name) if known and same_data and not task.num_fewshot else None


def _warnings(accuracy: Accuracy) -> list[str]:
    warnings = []
    if accuracy.acc == 0:
        warnings.append("accuracy 0")
    if accuracy.truncated:
        warnings.append(f"{accuracy.truncated} items were longer than the model takes and cut from the left")
    if not accuracy.scores_rows_alone:
        warnings.append("head and body cannot be told apart: the logits of all positions were computed")
    reference = accuracy.reference
    if reference is not None and accuracy.acc is not None and accuracy.acc_stderr:
        expected, gap = reference.acc, abs(accuracy.acc - reference.acc)
        noise = math.hypot(accuracy.acc_stderr, math.sqrt(expected * (1 - expected) / reference.n))
        if gap > LARGE_GAP * noise:
            warnings.append(
                f"accuracy {accuracy.acc:.2%} is {gap * 100:.1f} points from the reference's {expected:.2%} "
                f"({reference.source}), beyond noise"
            )
    return warnings
