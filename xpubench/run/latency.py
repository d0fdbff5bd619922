"""From latency specs of one subject to records: plan, load once, check, warm up, measure, write."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

import msgspec

from xpubench.accuracy import divergence
from xpubench.accuracy.check import (
    CPU_FLOAT32,
    Checks,
    check_file,
    check_weights,
    cpu_reference,
    recorded_reference,
    reference_limits,
)
from xpubench.accuracy.cost import CheckTime
from xpubench.accuracy.limits import precision_of
from xpubench.accuracy.neighbours import check_neighbours, neighbour_doubts
from xpubench.accuracy.timed import CHECK_PROMPTS, TimedTokens
from xpubench.catalog import status_of
from xpubench.errors import RunFailure, UserError
from xpubench.explanation import DeviceCard
from xpubench.measure.environment import noise_warnings
from xpubench.measure.summary import SummaryInputs, summarize_run, with_ceilings
from xpubench.plan import (
    StoredWeights,
    check_beam_count,
    check_depths,
    check_positions,
    decode_bytes_per_step,
    lack_of_memory,
    own_weights,
    plan_of,
)
from xpubench.progress import Progress
from xpubench.record import Bandwidth, MatrixPeak, Output, Record, RunChecks, Samples, now
from xpubench.results import ResultsDirectory, WriteError
from xpubench.run.expectation import expectation_of
from xpubench.run.explain import explained
from xpubench.run.generations import LoadGenerations, counts_per_load, measure_load, prompt_ids_of
from xpubench.run.session import Session
from xpubench.runtimes.options import RuntimeDescription
from xpubench.spec import RunSpec

# Of an architecture that the planner does not know. Rounding grows with the root of the blocks' number.
UNKNOWN_BLOCKS = 64


def run(
    specs: list[RunSpec],
    results: ResultsDirectory,
    progress: Progress,
    *,
    reference: str | None = None,
    max_kl: float | None = None,
    min_agreement: float | None = None,
    profile_name: str | None = None,
    explain: bool = False,
    depths: Sequence[int] = (),
) -> Iterator[Record]:
    """Measures specs of one subject, which is loaded once, and yields each record when it is written.

    A spec that fails yields a record of the failure, and the next one runs; an interruption ends all.
    `reference` is a record's path or `cpu-float32`; `max_kl`, in nats, and `min_agreement` take the place of
    the limits beyond which a run is no result. With `profile_name`, a trace and an operator table of
    one more generation, which counts in no figure, are written beside each record. With `explain` or `depths`
    the record says where its tokens' time went, and how it grows with the context.

    Raises UserError for what cannot be done as asked, before anything is loaded where that can be known, and
    WriteError, with the record, where one cannot be written.
    """
    with Session(specs, results, progress) as session:
        try:
            session.check()
            expected = _checked_reference(session, results, reference, depths)
            refused = _plan(session)
        except BaseException as error:
            yield from session.fail_all(error)
            return
        yield from refused
        if not session.specs:
            return
        try:
            setting = _set(session, reference, expected, max_kl=max_kl, min_agreement=min_agreement)
        except BaseException as error:
            yield from session.fail_all(error)
            return
        for spec in session.specs:
            record, answers = _measured(session, setting, spec)
            session.write(record)
            if answers is not None:
                record = _with_answers(session, record, answers, results)
            if record.status == "ok" and profile_name is not None:
                progress.say("profiling one more generation")
                record = session.write(_profiled(session, spec, record, results, profile_name))
            if record.status == "ok" and (explain or depths):
                prompt_ids = prompt_ids_of(session.generator, spec.workload, spec.protocol.seed, 0)
                found = explained(session, record, prompt_ids, explain=explain, depths=list(depths))
                record = session.write(found)
            yield record
            if record.status == "interrupted":
                return


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a loaded subject share. `blocks` is the number of decoder blocks, and `checksum` that
    of the weights after the load. `earlier` is the time of the checks so far that no run has counted.
    `bandwidth` and `peak` are None where the model runs on another device than the one that was measured."""

    bandwidth: Bandwidth | None
    peak: MatrixPeak | None
    card: DeviceCard
    validation: str
    checks: Checks
    description: RuntimeDescription
    doubts: list[str]
    blocks: int
    checksum: int | None
    earlier: CheckTime


def _checked_reference(
    session: Session[RunSpec], results: ResultsDirectory, reference: str | None, depths: Sequence[int]
) -> divergence.Trace | None:
    """The recorded reference; UserError where it cannot serve, or a workload or a depth is too long for the
    model."""
    check_depths(session.facts.architecture, depths)
    for spec in session.specs:
        check_positions(session.facts.architecture, spec.workload.input_tokens, spec.workload.new_tokens)
        check_beam_count(session.facts.architecture, spec.workload.num_beams)
    expected = recorded_reference(reference, session.subject)
    paths = {results.record_path(spec.id).resolve() for spec in session.specs}
    if reference is not None and Path(reference).resolve() in paths:
        raise UserError(f"this run would overwrite its reference {reference}; choose another --results-dir")
    return expected


def _plan(session: Session[RunSpec]) -> list[Record]:
    """Plans the runs; writes and returns the records of those for which there is too little memory."""
    facts, refused = session.facts, []
    for spec in session.specs:
        session.plans[spec.id] = plan_of(facts.architecture, spec, facts.catalog_device)
        if lack := lack_of_memory(facts.architecture, spec, facts.available_bytes):
            refused += [session.write(record) for record in session.failed(lack, [spec])]
    refused_ids = {record.id for record in refused}
    session.specs = [spec for spec in session.specs if spec.id not in refused_ids]
    return refused


def _plan_as_loaded(session: Session[RunSpec], description: RuntimeDescription) -> None:
    """Plans the runs anew by what the loaded model stores, where that is not what its dtype says."""
    facts, stored = session.facts, None
    if facts.architecture is None:
        return
    if description.quantization is not None or own_weights(facts.architecture, session.subject) is not None:
        stored = StoredWeights(weights=description.weight_bytes, step=description.step_weight_bytes)
    value_bytes = session.generator.kv_value_bytes(facts.architecture.head_dim)
    for spec in session.specs:
        plan = plan_of(facts.architecture, spec, facts.catalog_device, stored, value_bytes)
        session.plans[spec.id] = plan


def _set(
    session: Session[RunSpec],
    reference: str | None,
    expected: divergence.Trace | None,
    *,
    max_kl: float | None,
    min_agreement: float | None,
) -> Setting:
    subject, facts = session.subject, session.facts
    session.fetch()
    session.check_operators()
    check_weights(reference, session.fingerprint)
    session.progress.say(f"measuring the memory bandwidth of {subject.device}")
    bandwidth, peak = facts.device.bandwidth(subject.dtype), facts.device.matrix_peak(subject.dtype)
    card = session.card(bandwidth.ceiling_gb_per_s)
    earlier = CheckTime()
    if reference == CPU_FLOAT32:
        session.progress.say("generating the reference on the CPU in float32")
        with earlier.counting():
            expected = cpu_reference(session.specs[0], facts.architecture)
    session.load()
    facts = session.facts
    on_device = session.generator.elsewhere is None
    with earlier.counting():
        checksum = session.generator.checksum()
    description = session.generator.describe()
    if description.time_of_a_sum is not None:
        card = msgspec.structs.replace(card, sum_ns=description.time_of_a_sum)
    _plan_as_loaded(session, description)
    precision = precision_of(subject, session.generator.rounding, description.went_through)
    limits = reference_limits(reference, precision, max_kl=max_kl, min_agreement=min_agreement)
    doubts = noise_warnings(session.environment)
    if session.operators is not None:
        doubts += [f"operator not compared: {one}" for one in session.operators.problems("failed")]
    if subject.device == "cpu" and subject.dtype == "float16":
        doubts.append("float16 is slow on CPUs; bfloat16 is the one to use there")
    if facts.architecture is None:
        doubts.append("the planner does not know this architecture: no plan and no MBU")
    return Setting(
        bandwidth=bandwidth if on_device else None,
        peak=peak if on_device else None,
        card=card,
        validation=status_of(subject.model, facts.config.get("model_type")),
        checks=Checks(session.generator, reference, expected, limits),
        description=description,
        doubts=doubts + session.generator.doubts(),
        blocks=facts.architecture.num_layers if facts.architecture else UNKNOWN_BLOCKS,
        checksum=checksum,
        earlier=earlier,
    )


def _measured(
    session: Session[RunSpec], setting: Setting, spec: RunSpec
) -> tuple[Record, divergence.Trace | None]:
    """The record of one spec, whatever happens, and its answers to the check prompts if it got so far."""
    samples, answers, distance = Samples(iterations=[], warmup=[], loads=[]), None, None
    try:
        # The run before may have ended while it loaded again.
        if not session.is_loaded:
            session.load()
            setting.checks.generator = session.generator
        prompt = spec.workload.prompt or ""
        input_tokens = spec.workload.input_tokens or len(session.generator.vocabulary.encode(prompt))
        check_positions(session.facts.architecture, input_tokens, spec.workload.new_tokens)
        watched = TimedTokens(session.generator, setting.blocks, setting.earlier.hand_over())
        with watched.checking():
            answers, distance = setting.checks.answer(spec)
            doubts = setting.checks.doubts(spec)
        record = _measure(session, setting, spec, input_tokens, samples, watched)
        warnings = [*doubts, *record.warnings]
        return msgspec.structs.replace(record, divergence=distance, warnings=warnings), answers
    except BaseException as error:
        (failed,) = session.failed(error, [spec])
        return msgspec.structs.replace(failed, samples=samples, divergence=distance), answers


def _measure(
    session: Session[RunSpec],
    setting: Setting,
    spec: RunSpec,
    input_tokens: int,
    samples: Samples,
    watched: TimedTokens,
) -> Record:
    workload, protocol = spec.workload, spec.protocol
    count = protocol.num_iter - protocol.num_warmup
    progress = session.progress
    progress.begin(workload.title(input_tokens), protocol.loads * protocol.num_warmup + 2 * count)
    of_loads = []
    for number, of_load in enumerate(counts_per_load(count, protocol.loads)):
        if number:
            _check_weights_stayed(session, setting, watched)
            _load_again(session, setting, watched)
        samples.loads.append(session.loaded)
        of_loads.append(measure_load(session, spec, number, of_load, samples, watched))
    generator, verification = session.generator, of_loads[-1].verification

    # Described again, because torch.compile's counters change with the workload. This and the peaks come
    # before the bandwidth is measured again, whose buffers are no part of the run.
    description = generator.describe()
    inputs = _summary_inputs(session, setting, spec, input_tokens, of_loads)
    inputs = msgspec.structs.replace(inputs, load_s=median(one.load_s for one in samples.loads))
    bandwidth = setting.bandwidth
    if bandwidth is not None:
        bandwidth = session.facts.device.bandwidth_again(spec.subject.dtype, bandwidth)
        inputs = with_ceilings(inputs, bandwidth)
    summary, warnings = summarize_run(samples, inputs)
    expectation = expectation_of(session, setting.card, spec, setting.description, summary)
    progress.say("looking at the timed tokens")
    with watched.checking():
        for answers in setting.checks.before_and_after(spec):
            watched.add(CHECK_PROMPTS, answers.prompt_ids, 1, answers.tokens)
        neighbours = check_neighbours(generator, workload, protocol.seed, setting.blocks)
    _check_weights_stayed(session, setting, watched)
    tokens = watched.settle(weights_watched=setting.checksum is not None)
    warnings += watched.warnings() + neighbour_doubts(neighbours)
    if spec.subject.weights != "dummy":
        warnings += watched.degenerate(text=workload.prompt is not None)
    if workload.cache == "static" and "Static" not in (verification.cache or ""):
        warnings.append("a static cache was asked for, and the stack does not show which one it used")
    first_tokens = verification.tokens[0].tolist()
    return Record(
        id=spec.id,
        created=now(),
        spec=spec,
        environment=session.environment,
        fingerprint=session.fingerprint,
        status="ok",
        samples=samples,
        plan=session.plans.get(spec.id),
        summary=summary,
        runtime=description,
        bandwidth=bandwidth,
        peak=setting.peak,
        expectation=expectation,
        checks=RunChecks(
            validation=setting.validation,
            new_tokens=workload.new_tokens,
            logits_finite=None if verification.logits is None else verification.logits.finite,
            cache=verification.cache,
            cache_positions=verification.cache_positions,
            collectives=verification.collectives,
            operators=session.operators,
            operators_s=session.operators_s,
            tokens=tokens,
            neighbours=neighbours,
        ),
        output=Output(
            first_token_ids=first_tokens,
            first_text=None if workload.prompt is None else generator.vocabulary.decode(first_tokens),
        ),
        warnings=setting.doubts + warnings,
    )


def _load_again(session: Session[RunSpec], setting: Setting, watched: TimedTokens) -> None:
    """Loads the subject anew; its tokens are held against those of the earlier loads."""
    session.load()
    setting.checks.generator = watched.generator = session.generator


def _check_weights_stayed(session: Session[RunSpec], setting: Setting, watched: TimedTokens) -> None:
    """RunFailure `numerics` where the weights on the device are not those of the first load."""
    with watched.checking():
        if session.generator.checksum() != setting.checksum:
            raise RunFailure("numerics", "the weights on the device have changed since the load")


def _summary_inputs(
    session: Session[RunSpec],
    setting: Setting,
    spec: RunSpec,
    input_tokens: int,
    of_loads: list[LoadGenerations],
) -> SummaryInputs:
    facts, workload = session.facts, spec.workload
    architecture, sheet = facts.architecture, facts.catalog_device
    step_bytes = prefill_flop = None
    if architecture is not None:
        part, weights = architecture.part(spec.subject.tp_size), setting.description.step_weight_bytes
        value_bytes = session.generator.kv_value_bytes(architecture.head_dim)
        step_bytes = decode_bytes_per_step(part, workload, input_tokens, weights, value_bytes)
        sequences = workload.batch_size * workload.num_beams
        prefill_flop = part.prefill_flop(sequences=sequences, tokens=input_tokens)
    return SummaryInputs(
        batch_size=workload.batch_size,
        input_tokens=input_tokens,
        new_tokens=workload.new_tokens,
        load_s=session.loaded.load_s,
        step_bytes=step_bytes,
        bandwidth_datasheet_gb_per_s=sheet.bandwidth_gb_per_s if sheet else None,
        peak_device_bytes=max((one.peak_device_bytes or 0 for one in of_loads), default=0) or None,
        peak_host_bytes=max(one.peak_host_bytes for one in of_loads),
        until_ci=spec.protocol.until_ci,
        prefill_flop=prefill_flop,
        peak_tflop_per_s=setting.peak.highest_tflop_per_s if setting.peak else None,
    )


def _with_answers(
    session: Session[RunSpec], record: Record, answers: divergence.Trace, results: ResultsDirectory
) -> Record:
    """Writes the answers to the check prompts beside the record, which tells if that failed."""
    name = check_file(record.id)
    try:
        results.write_file(name, divergence.save(answers))
    except WriteError as error:
        # Those of an earlier run are not this one's.
        with suppress(OSError):
            (results.path / name).unlink(missing_ok=True)
        warnings = [*record.warnings, f"no answers to the check prompts are kept: {error}"]
        return session.write(msgspec.structs.replace(record, warnings=warnings))
    return record


def _profiled(
    session: Session[RunSpec], spec: RunSpec, record: Record, results: ResultsDirectory, name: str
) -> Record:
    """Writes the profile of one more generation; the record tells if that failed."""
    generator = session.generator
    prompt_ids = prompt_ids_of(generator, spec.workload, spec.protocol.seed, 0)
    try:
        trace, operators = session.facts.device.profile(
            lambda: generator.generate(prompt_ids, spec.workload, "end_to_end")
        )
        results.write_file(f"{spec.id}.{name}.trace.json", trace)
        results.write_file(f"{spec.id}.{name}.operators.txt", operators.encode())
    except Exception as error:
        warning = f"not profiled: {type(error).__name__}: {error}"
        return msgspec.structs.replace(record, warnings=[*record.warnings, warning])
    return record
