"""What a suite would run: the memory, the roofline and the time of each run, without loading anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

import msgspec

from xpubench.catalog import TEST_SETS, CatalogDevice, config_of, identify_device
from xpubench.catalog.architecture import architecture_of
from xpubench.catalog.defects import Defect
from xpubench.errors import UserError
from xpubench.measure.perturbation import FIRST_PAIRS
from xpubench.plan import Plan, check_int4, plan_of
from xpubench.record import Record
from xpubench.results import ResultsDirectory
from xpubench.run.order import Spec
from xpubench.run.suite import wanted
from xpubench.run.supervisor import records_of
from xpubench.runtimes import registry
from xpubench.runtimes.defects import known_defects
from xpubench.spec import LEAST_PAIRS, AccuracySpec, RunSpec, Subject

# The passages of a task and the tokens of one: LAMBADA's have 74 words and 340 characters in the mean.
PASSAGES = dict.fromkeys(TEST_SETS, (5153, 90)) | {"lambada_smoke": (60, 30)}
# The shares of the bandwidth that published runs of decoding reach.
USUAL_SHARES = (0.3, 0.7)
MEASURED = "the most that it has shown, measured just now too"
# This machine's devices by their names and the dtype of their peak; None for one that it does not have.
Devices = Mapping[tuple[str, str], CatalogDevice | None]


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for: its plan, a lower bound of its seconds, the seconds that it took where it is
    done, and the number of directories in which it is still to run."""

    spec: Spec
    plan: Plan | None
    least_s: float | None
    took_s: float | None
    pending: int


class TimeLeft(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds that the remaining runs take, without the start of their processes: an estimate from the
    times of `done` runs or, where none is done, the sum of lower bounds, which lacks the `unbounded` runs;
    None where no bound is known either."""

    seconds: float | None
    done: int
    unbounded: int


def outlooks(specs: Sequence[Spec], directories: Sequence[Path], devices: Devices) -> list[Outlook]:
    """What each run needs on its device, and what it took by the records of the directories, one for each
    round."""
    found = []
    for spec in specs:
        done = [records for path in directories if (records := _done(path, spec))]
        device = devices.get((spec.subject.device, spec.subject.dtype))
        plan = _plan(spec, device)
        least_s, took_s = _least_s(spec, plan, device), _took_s(done[-1]) if done else None
        pending = len(directories) - len(done)
        found.append(Outlook(spec=spec, plan=plan, least_s=least_s, took_s=took_s, pending=pending))
    return found


def _done(directory: Path, spec: Spec) -> list[Record]:
    if not directory.is_dir():
        return []
    results = ResultsDirectory(directory)
    return [] if wanted(results, spec, None) else records_of(results, spec)


def _plan(spec: Spec, device: CatalogDevice | None) -> Plan | None:
    if not isinstance(spec, RunSpec):
        return None
    try:
        architecture = architecture_of(config_of(spec.subject.model))
        check_int4(architecture, spec.subject)
        return plan_of(architecture, spec, device)
    except UserError:  # the run will fail with it, and its record says so
        return None


def defects_met(spec: Spec) -> list[Defect]:
    """The known defects of the run's stack that it would meet here. Whether the GPU has 2D block loads is not
    known before the stack is loaded, so that those of both kinds count."""
    try:
        model_type = config_of(spec.subject.model).get("model_type")
    except UserError:
        return []
    return known_defects(spec.subject, model_type, spec.workload if isinstance(spec, RunSpec) else None)


def catalog_device_of(subject: Subject) -> CatalogDevice | None:
    """The device that the subject's runtime finds here, by its data sheet, else by the highest bandwidth that
    it has shown, now or before, as other work can only lower it. Where no data sheet has the peak in the
    subject's dtype, it is the highest of matrix products in that dtype or in float32. None where the runtime
    finds no device."""
    loader = registry.loader(subject.runtime)
    try:
        loader.set_up()
        device = loader.device(subject)
    except UserError:
        return None
    facts = device.facts()
    known = identify_device(facts.name, facts.total_memory_bytes) or CatalogDevice(
        id=subject.device,
        name=facts.name,
        reported=[],
        memory_bytes=facts.total_memory_bytes or 0,
        bandwidth_gb_per_s=device.bandwidth(subject.dtype).highest_gb_per_s,
        bandwidth_source=MEASURED,
    )
    # The peaks of data sheets are those of 16 bits.
    if known.peak_tflop_per_s is not None and subject.dtype != "float32":
        return known
    # Stacks compute in float32 where a CPU has no faster products of 16 bits.
    peaks = [device.matrix_peak(dtype) for dtype in dict.fromkeys((subject.dtype, "float32"))]
    reached = max((peak.highest_tflop_per_s for peak in peaks if peak is not None), default=None)
    return msgspec.structs.replace(known, peak_tflop_per_s=reached, peak_source=MEASURED)


def _least_s(spec: Spec, plan: Plan | None, device: CatalogDevice | None) -> float | None:
    """The roofline's time of all generations that a run needs: the verified one, the shortest warm-up, the
    measured ones, and the fewest bare ones; or of a task's items. It leaves out the start of the process and
    the load."""
    if isinstance(spec, AccuracySpec):
        return _scoring_s(spec, device)
    if plan is None or plan.roofline_next_token_ms is None or not isinstance(spec, RunSpec):
        return None
    protocol = spec.protocol
    pairs = protocol.num_iter - protocol.num_warmup
    if protocol.until_ci is not None:
        pairs = min(pairs, LEAST_PAIRS + 1)
    # The last pair is made whatever the first ones say.
    bare = pairs if protocol.every_pair else min(pairs, FIRST_PAIRS + 1)
    generations = 1 + min(1, protocol.num_warmup) + pairs + bare
    return generations * (first_token_ms(plan) + (plan.new_tokens - 1) * plan.roofline_next_token_ms) / 1e3


def _scoring_s(spec: AccuracySpec, device: CatalogDevice | None) -> float | None:
    """The time of the floating point operations of a LAMBADA task's passages at the device's peak; None of
    other tasks, and where no peak is known."""
    if spec.task.name not in PASSAGES or device is None or device.peak_tflop_per_s is None:
        return None
    try:
        architecture = architecture_of(config_of(spec.subject.model))
    except UserError:
        return None
    if architecture is None:
        return None
    passages, tokens = PASSAGES[spec.task.name]
    flop = architecture.prefill_flop(sequences=spec.task.limit or passages, tokens=tokens)
    return flop / (device.peak_tflop_per_s * 1e12)


def first_token_ms(plan: Plan) -> float:
    """The roofline's first token latency or, where it is not known, the time of one pass over the weights."""
    return plan.roofline_first_token_ms or plan.roofline_next_token_ms or 0.0


def _took_s(records: Sequence[Record]) -> float | None:
    """The seconds of a run: of its load and its generations or items; None where it failed."""
    seconds = 0.0
    for record in records:
        if record.summary is None:
            return None
        seconds += record.summary.load_s or 0.0
        if record.accuracy is not None and record.accuracy.items_per_s:
            seconds += record.accuracy.n / record.accuracy.items_per_s
        samples = [*record.samples.warmup, *record.samples.iterations]
        seconds += sum(one.end_to_end_ns for one in samples) / 1e9
    return seconds


def time_left(runs: Sequence[Outlook]) -> TimeLeft:
    """The time of the remaining runs, from the ratio of each finished run's time to its lower bound."""
    pending = [run for run in runs if run.pending]
    took = [run.took_s for run in runs if run.took_s is not None]
    if not took:
        bounds = [run.pending * run.least_s for run in pending if run.least_s is not None]
        return TimeLeft(seconds=sum(bounds) if bounds else None, done=0, unbounded=len(pending) - len(bounds))
    ratios = [run.took_s / run.least_s for run in runs if run.took_s is not None and run.least_s]
    factor, usual = median(ratios) if ratios else None, fmean(took)
    seconds = sum(
        run.pending * (run.took_s or (run.least_s * factor if run.least_s and factor else usual))
        for run in pending
    )
    return TimeLeft(seconds=seconds, done=len(took), unbounded=0)
