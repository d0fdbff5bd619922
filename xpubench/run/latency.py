"""Run specs of one subject to records of their latency: plan, load once, check, warm up, measure, write."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from time import perf_counter_ns

import msgspec
import numpy as np

from xpubench.accuracy import divergence
from xpubench.accuracy.check import CPU_FLOAT32, Checks, check_file, cpu_reference, recorded_reference
from xpubench.catalog import status_of
from xpubench.catalog.architecture import Architecture
from xpubench.errors import RunFailure, UserError
from xpubench.failures import classify, failed_record, write_failures
from xpubench.measure.bandwidth import Bandwidth, measure_bandwidth
from xpubench.measure.environment import capture, noise_warnings
from xpubench.measure.iterations import pairs, warm_up
from xpubench.measure.memory import peak_device_bytes, peak_host_bytes, reset_peaks
from xpubench.measure.summary import Facts, summarize_run
from xpubench.plan import Plan, check_positions, decode_bytes_per_step, lack_of_memory, plan_of
from xpubench.progress import Progress
from xpubench.prompts import random_prompt
from xpubench.record import Iteration, Record, Samples, SyncPolicy, now
from xpubench.results import ResultsDirectory
from xpubench.run.session import Ground, fetch, load, precision_warnings, survey
from xpubench.runtimes.base import Runtime, TokenIds
from xpubench.spec import RunSpec, Subject, Workload


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a loaded subject share."""

    ground: Ground
    bandwidth: Bandwidth
    load_s: float
    validation: str
    warnings: list[str]


def run(
    specs: list[RunSpec],
    results: ResultsDirectory,
    progress: Progress,
    *,
    reference: str | None = None,
    profile_name: str | None = None,
) -> Iterator[Record]:
    """Measures specs of one subject, which is loaded once, and yields each record when it is written.

    A spec that fails yields a record of the failure, and the next one runs; an interruption ends all.
    `reference` is a record's path or `cpu-float32`. With `profile_name`, a trace and an operator table of
    one more generation, which counts in no figure, are written beside each record.

    Raises UserError for what cannot be done as asked, before anything is loaded where that can be known.
    """
    subject = specs[0].subject
    if any(spec.subject != subject for spec in specs):
        raise ValueError("the specs of one run have one subject")
    try:
        ground = survey(subject)
    except RunFailure as failure:
        yield from write_failures(results, specs, capture(subject.device), failure, {})
        return
    for spec in specs:
        check_positions(ground.architecture, spec.workload.input_tokens, spec.workload.new_tokens)
    expected = recorded_reference(reference, subject)
    for spec in specs:
        if reference is not None and Path(reference).resolve() == results.record_path(spec.id).resolve():
            raise UserError(
                f"this run would overwrite its reference {reference}; choose another --results-dir"
            )

    plans = {spec.id: plan_of(ground.architecture, spec, ground.device) for spec in specs}
    runnable = []
    for spec in specs:
        if lack := lack_of_memory(ground.architecture, spec, ground.available_bytes):
            yield from write_failures(results, [spec], ground.environment, lack, plans)
        else:
            runnable.append(spec)
    if not runnable:
        return

    try:
        fetch(subject, progress)
        progress.say(f"measuring the memory bandwidth of {subject.device}")
        bandwidth = _bandwidth(subject.device, subject.dtype)
        if reference == CPU_FLOAT32:
            progress.say("generating the reference on the CPU in float32")
            expected = cpu_reference(runnable[0], ground.architecture)
        runtime, load_s = load(subject, progress)
    except UserError:
        raise
    except BaseException as error:
        yield from write_failures(results, runnable, ground.environment, error, plans)
        return

    setting = Setting(
        ground=ground,
        bandwidth=bandwidth,
        load_s=load_s,
        validation=status_of(subject.model, ground.config.get("model_type")),
        warnings=[*_setting_warnings(subject, ground), *precision_warnings(subject, runtime)],
    )
    checks = Checks(runtime, reference, expected)
    try:
        for spec in runnable:
            record, answers = _measured(runtime, spec, plans[spec.id], setting, checks, progress)
            results.write(record)
            if answers is not None:
                results.write_file(check_file(spec.id), divergence.save(answers))
            if record.status == "ok" and profile_name is not None:
                progress.say("profiling one more generation")
                record = _profiled(runtime, spec, record, results, profile_name)
                results.write(record)
            yield record
            if record.status == "interrupted":
                return
    finally:
        runtime.close()


@cache
def _bandwidth(device: str, dtype: str) -> Bandwidth:
    """Measured once a process."""
    return measure_bandwidth(device, dtype)


def _setting_warnings(subject: Subject, ground: Ground) -> list[str]:
    warnings = noise_warnings(ground.environment)
    if subject.device == "cpu" and subject.dtype == "float16":
        warnings.append("float16 is slow on CPUs; bfloat16 is the one to use there")
    if ground.architecture is None:
        warnings.append("the architecture is not one that the planner knows: no plan and no MBU")
    return warnings


def _measured(
    runtime: Runtime,
    spec: RunSpec,
    plan: Plan | None,
    setting: Setting,
    checks: Checks,
    progress: Progress,
) -> tuple[Record, divergence.Trace | None]:
    """The record of one spec, whatever happens, and the answers to the check prompts if it got so far."""
    samples = Samples(iterations=[], warmup=[])
    answers = None
    try:
        input_tokens = spec.workload.input_tokens or len(runtime.encode(spec.workload.prompt or ""))
        check_positions(setting.ground.architecture, input_tokens, spec.workload.new_tokens)
        answers, distance = checks.answer(spec)
        record = _measure(runtime, spec, input_tokens, setting, progress, samples)
        return msgspec.structs.replace(record, plan=msgspec.to_builtins(plan), divergence=distance), answers
    except UserError:
        raise
    except BaseException as error:
        failure = classify(error, spec.subject.device)
        return failed_record(spec, setting.ground.environment, failure, plan, samples), answers


def _measure(
    runtime: Runtime,
    spec: RunSpec,
    input_tokens: int,
    setting: Setting,
    progress: Progress,
    samples: Samples,
) -> Record:
    workload, protocol = spec.workload, spec.protocol
    count = protocol.num_iter - protocol.num_warmup
    progress.begin(workload.title(input_tokens), protocol.num_warmup + 2 * count)

    runtime.prepare(workload)
    verification = runtime.verify(_prompt_ids(runtime, workload, protocol.seed, 0), workload)
    if verification.logits_finite is False:
        raise RunFailure("numerics", "NaN or infinite logits while generating")

    def once(sync_policy: SyncPolicy, index: int) -> Iteration:
        return _generate_once(runtime, workload, sync_policy, protocol.seed, index)

    reset_peaks(spec.subject.device)
    for iteration in warm_up(once, protocol.num_warmup):
        samples.warmup.append(iteration)
        progress.step(f"warm-up: {iteration.end_to_end_ns / 1e6:.1f} ms")
    for iteration in pairs(once, count, protocol.num_warmup):
        samples.iterations.append(iteration)
        progress.step(f"{iteration.sync_policy}: {iteration.end_to_end_ns / 1e6:.1f} ms")

    facts = Facts(
        batch_size=workload.batch_size,
        input_tokens=input_tokens,
        new_tokens=workload.new_tokens,
        load_s=setting.load_s,
        step_bytes=_step_bytes(runtime, spec, setting.ground.architecture, input_tokens),
        bandwidth_measured_gb_per_s=setting.bandwidth.ceiling_gb_per_s,
        bandwidth_datasheet_gb_per_s=_datasheet_bandwidth(setting.ground),
        peak_device_bytes=peak_device_bytes(spec.subject.device),
        peak_host_bytes=peak_host_bytes(),
    )
    summary, warnings = summarize_run(samples, facts)
    if workload.cache == "static" and "Static" not in (verification.cache or ""):
        warnings.append("a static cache was asked for, and the stack does not show which it used")
    first_tokens = verification.tokens[0].tolist()
    return Record(
        id=spec.id,
        created=now(),
        spec=spec,
        environment=setting.ground.environment,
        status="ok",
        samples=samples,
        summary=summary,
        runtime=runtime.describe(),
        bandwidth=msgspec.to_builtins(setting.bandwidth),
        checks={
            "validation": setting.validation,
            "new_tokens": workload.new_tokens,
            "logits_finite": verification.logits_finite,
            "cache": verification.cache,
            "cache_positions": verification.cache_positions,
        }
        | ({} if verification.collectives is None else {"collectives": verification.collectives}),
        output={
            "first_token_ids": first_tokens,
            "first_text": runtime.decode(first_tokens) if workload.prompt is not None else None,
        },
        warnings=setting.warnings + warnings,
    )


def _generate_once(
    runtime: Runtime, workload: Workload, sync_policy: SyncPolicy, seed: int, index: int
) -> Iteration:
    """One generation under the clock; of a text prompt also the times to tokenize and detokenize."""
    called_ns = perf_counter_ns()
    prompt_ids = _prompt_ids(runtime, workload, seed, index)
    tokenize_ns = perf_counter_ns() - called_ns
    generation = runtime.generate(prompt_ids, workload, sync_policy)
    if workload.prompt is None:
        return generation.times.iteration()
    called_ns = perf_counter_ns()
    runtime.decode(generation.tokens[0].tolist())
    return generation.times.iteration(tokenize_ns, perf_counter_ns() - called_ns)


def _prompt_ids(runtime: Runtime, workload: Workload, seed: int, index: int) -> TokenIds:
    if workload.input_tokens is None:
        return np.array([runtime.encode(workload.prompt or "")] * workload.batch_size, dtype=np.int64)
    return random_prompt(
        runtime.vocab_size,
        runtime.special_ids,
        batch_size=workload.batch_size,
        length=workload.input_tokens,
        seed=seed,
        index=index,
    )


def _step_bytes(
    runtime: Runtime, spec: RunSpec, architecture: Architecture | None, input_tokens: int
) -> int | None:
    if architecture is None:
        return None
    return decode_bytes_per_step(
        architecture.part(spec.subject.tp_size),
        weight_bytes_per_step=runtime.step_weight_bytes,
        sequences=spec.workload.batch_size * spec.workload.num_beams,
        input_tokens=input_tokens,
        new_tokens=spec.workload.new_tokens,
        kv_value_bytes=runtime.kv_value_bytes(architecture.head_dim),
    )


def _profiled(
    runtime: Runtime, spec: RunSpec, record: Record, results: ResultsDirectory, name: str
) -> Record:
    """Writes the profile of one more generation; the record tells if that failed."""
    from xpubench.measure.profile import profile

    prompt_ids = _prompt_ids(runtime, spec.workload, spec.protocol.seed, 0)
    try:
        trace, operators = profile(
            lambda: runtime.generate(prompt_ids, spec.workload, "end_to_end"), spec.subject.device
        )
    except Exception as error:
        warning = f"not profiled: {type(error).__name__}: {error}"
        return msgspec.structs.replace(record, warnings=[*record.warnings, warning])
    results.write_file(f"{spec.id}.{name}.trace.json", trace)
    results.write_file(f"{spec.id}.{name}.operators.txt", operators.encode())
    return record


def _datasheet_bandwidth(ground: Ground) -> float | None:
    return ground.device.bandwidth_gb_per_s if ground.device else None
