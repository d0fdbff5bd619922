"""One run's outcome as versioned JSON."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from xpubench.catalog import PublishedAccuracy
from xpubench.environment import Environment
from xpubench.errors import FailureClass, UserError
from xpubench.explanation import Expectation, Explanation
from xpubench.plan import Plan
from xpubench.runtimes.registry import Description
from xpubench.spec import AccuracySpec, RunSpec
from xpubench.version_1 import from_version_1

SCHEMA_VERSION = 2
SPACE = re.compile(r"\s*")
T = TypeVar("T")

SyncPolicy = Literal["every_token", "end_to_end"]


class Drafting(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a generation whose tokens are drafted and then accepted or not: the new tokens that each
    step of the main model gave, the prompt's first, and of a draft model the drafted tokens, those that were
    accepted, and the time in either model in nanoseconds (None where the prompt drafts)."""

    step_tokens: list[int]
    drafted: int | None = None
    accepted: int | None = None
    main_ns: int | None = None
    draft_ns: int | None = None


class CpuUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the process got of the machine's cores within `wall_ns` nanoseconds: the CPU time of all its
    threads (spinning counts as work), the time for which threads that could run waited for a core (schedstat,
    proc(5)), and for which a limit of its cgroup stopped it (cpu.stat). None is what the kernel does not
    tell."""

    wall_ns: int
    cpu_ns: int
    waited_ns: int | None = None
    stopped_ns: int | None = None


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """One `generate` call, in nanoseconds. The tokens' times are None where only start and end were stamped.

    Over ranks, a time is that of the latest rank, and `ranks_ns` holds each rank's own stamps since the
    common start: those of its tokens, where they were taken, and that of its end.

    `available_host_bytes` is the memory that the whole machine had available after the call (MemAvailable,
    proc(5)), which also falls where a driver pins memory outside of the process. `load` is the index of the
    load that it belongs to, and `cpu` what the process, over ranks the first one, got of the cores during the
    call."""

    sync_policy: SyncPolicy
    first_token_ns: int | None
    next_token_ns: list[int] | None
    end_to_end_ns: int
    tokenize_ns: int | None = None
    detokenize_ns: int | None = None
    ranks_ns: list[list[int]] | None = None
    available_host_bytes: int | None = None
    drafting: Drafting | None = None
    load: int = 0
    cpu: CpuUse | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One load of the subject: its time in seconds, and after it the process's memory in bytes
    (smaps_rollup, proc(5)): all that is resident, the part that belongs to no file, and the part of this in
    huge pages. Weights that are mapped from a file are not in the latter two. None where the kernel does not
    tell."""

    load_s: float
    resident_bytes: int | None = None
    anonymous_bytes: int | None = None
    huge_page_bytes: int | None = None


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples: the measured iterations, those of the warm-up, which no figure includes, and the loads.
    The first of each load's warm-up is the generation that is looked at, whose tokens are not stamped."""

    iterations: list[Iteration] = []
    warmup: list[Iteration] = []
    loads: list[Load] = []


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of `n` samples in milliseconds. `ci95` is the 95% interval of the median; where the run has
    several loads, it is resampled over these too. `p99` is None below 100 samples."""

    median: float
    ci95: tuple[float, float] | None
    mean: float
    stdev: float | None
    p50: float
    p90: float
    p99: float | None
    n: int


class SequentialInterval(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency of a run that `--until-ci` may end: the geometric mean of the medians of the
    first `pairs` stamped generations, and the 95% interval around it that holds at all looks together
    (`xpubench.measure.sequential`; for independent pairs with normal logarithms), None below five pairs.
    `half_width` is how far the interval reaches above the mean, `wanted` how far it might, both as shares of
    the mean. Where it was `reached`, these pairs ended the run, but for one more pair that closes it where
    the number of iterations allows one, and which is not among them. The interval tells the noise in one
    process, and nothing of that between processes."""

    wanted: float
    reached: bool
    pairs: int
    mean_ms: float
    ci95_ms: tuple[float, float] | None
    half_width: float | None


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="latency"):
    """The figures of a successful latency run. `perturbation`, the MBUs and `imbalance` are ratios; the last
    is the slowest rank's end-to-end latency over the mean of all ranks. The peaks of memory are those of
    warm-up and measured iterations, `load_s` is the time of the load in seconds. `until_ci` is None where the
    number of iterations was given. `perturbation_pairs` is the number of prompts from which generations under
    both sync policies were timed, and `perturbation_ci95` the interval of the geometric mean of their ratios,
    None with fewer than three; earlier records, which lack both, have a pair for each prompt.

    `mbu_measured` is the share of `bandwidth_measured_gb_per_s`, which is the most that the device has shown
    to any process where `ceiling_of` is "device", and what the run's own process reached before the run where
    it is "process". `mbu_measured_interval` reaches from the share of that ceiling at the upper end of the
    next token latency's interval to the share of `bandwidth_lowest_gb_per_s`, the lower of the process's
    ceilings before and after the timed part, at the lower end. Where tokens are drafted, both are of the
    main model's steps: their number is told by `tokens_per_step`, the new tokens of a step after the first,
    and `acceptance` is the share of a draft model's tokens that were accepted.
    `available_host_bytes_per_iteration` is the slope of the machine's available memory over the measured
    iterations, below 0 where it falls, from ten iterations up.

    `load_s` is the median where there are several loads, and `load_spread` how far the slowest load's median
    next token latency (the first token's where there is no other) lies above the fastest load's, as a share
    of that. `cores` is the process's CPU time over the wall's during the measured iterations, and
    `cores_wanted` adds the time for which its threads waited for a core.

    `prompt_tokens_per_s` is batch x input tokens / the median first token latency, and `prompt_share_of_peak`
    the plan's operations of the prompt over that latency and `peak_tflop_per_s`, the most of matrix products
    in the run's dtype that the device has shown to any process.
    """

    first_token_ms: Statistic
    next_token_ms: Statistic | None
    end_to_end_ms: Statistic
    tokens_per_s: float
    perturbation: float
    mbu_measured: float | None
    mbu_datasheet: float | None
    bandwidth_measured_gb_per_s: float | None
    bandwidth_datasheet_gb_per_s: float | None
    step_bytes: int | None
    peak_device_bytes: int | None
    peak_host_bytes: int | None
    load_s: float
    input_tokens: int
    imbalance: float | None = None
    mbu_measured_interval: tuple[float, float] | None = None
    bandwidth_lowest_gb_per_s: float | None = None
    ceiling_of: Literal["device", "process"] = "process"
    available_host_bytes_per_iteration: float | None = None
    until_ci: SequentialInterval | None = None
    tokens_per_step: float | None = None
    acceptance: float | None = None
    perturbation_ci95: tuple[float, float] | None = None
    perturbation_pairs: int | None = None
    load_spread: float | None = None
    cores: float | None = None
    cores_wanted: float | None = None
    prompt_tokens_per_s: float | None = None
    prompt_share_of_peak: float | None = None
    peak_tflop_per_s: float | None = None


class AccuracySummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="accuracy"):
    """The peaks of memory of an accuracy run while it scored, and the time of its load in seconds."""

    peak_device_bytes: int | None = None
    peak_host_bytes: int | None = None
    load_s: float | None = None


class CeilingSample(msgspec.Struct, frozen=True, kw_only=True):
    """A bandwidth ceiling in GB/s (10^9 bytes), and when a process measured it."""

    created: str
    gb_per_s: float


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """Bandwidths in GB/s (10^9 bytes), each from the fastest repeat, with the times of all repeats.

    A copy counts the bytes read and written. A read is a sum. A matrix-vector product counts the matrix, in
    the run's dtype or in float32, whichever is faster, as a CPU without instructions for the dtype is bound
    by computing instead of reading. The ceiling is the largest of the three: where stores first read what
    they overwrite, as on most CPUs, a copy alone would be too low a ceiling for decoding, which only reads.
    The first records have only the copy, and OpenVINO's GPUs and NPUs only the product, which OpenVINO
    computes.

    The `after_` fields are those of a shorter measurement after the timed part, None where the buffers did
    not fit beside the model. `highest` is the most that the device has shown to any process by then; records
    that lack it knew only their own process. Buffers hold random bits where `highest` is known, and ones
    before.
    """

    ceiling_gb_per_s: float
    copy_gb_per_s: float | None = None
    read_gb_per_s: float | None = None
    matvec_gb_per_s: float | None = None
    matvec_dtype: str | None = None
    buffer_bytes: int | None = None
    copy_ns: list[int] = []
    read_ns: list[int] = []
    matvec_ns: list[int] = []
    after_ceiling_gb_per_s: float | None = None
    after_copy_ns: list[int] = []
    after_read_ns: list[int] = []
    after_matvec_ns: list[int] = []
    highest: CeilingSample | None = None

    @property
    def highest_gb_per_s(self) -> float:
        """The ceiling of MBU: the most that the device has shown, or this process where that is not known."""
        return self.highest.gb_per_s if self.highest else self.ceiling_gb_per_s

    @property
    def lowest_gb_per_s(self) -> float:
        """The lower of the ceilings before and after the timed part."""
        return min(self.ceiling_gb_per_s, self.after_ceiling_gb_per_s or self.ceiling_gb_per_s)


class PeakSample(msgspec.Struct, frozen=True, kw_only=True):
    """A rate of matrix products in TFLOP/s (10^12), and when a process measured it."""

    created: str
    tflop_per_s: float


class MatrixPeak(msgspec.Struct, frozen=True, kw_only=True):
    """The rate of matrix products in TFLOP/s (10^12), 2 `size`^3 operations each, in a dtype: the fastest of
    all sizes, with the times of all repeats of the last one. `highest` is the most that the device has shown
    to any process by then; it is None where nothing is kept."""

    tflop_per_s: float
    dtype: str
    size: int
    times_ns: list[int] = []
    highest: PeakSample | None = None

    def shown(self, highest: PeakSample) -> "MatrixPeak":
        """The same with the most that the device has shown."""
        return msgspec.structs.replace(self, highest=highest)

    @property
    def highest_tflop_per_s(self) -> float:
        """The most that the device has shown, or this process where that is not known."""
        return self.highest.tflop_per_s if self.highest else self.tflop_per_s


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run has no summary."""

    failure_class: FailureClass = msgspec.field(name="class")
    message: str
    log_tail: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a task: the log-likelihood of its right answer (natural logarithm; None where the task has
    none) and whether the model chose that answer."""

    id: int
    loglikelihood: float | None
    correct: bool | None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run with `--until-decided` stands beside the reference, an accuracy record by its id: `gained`
    items are right now, `lost` were right there, of `read` ones in an order drawn by the seed, of `total` in
    all. `decided` tells whether the loss over all items is `within` the limit, in percentage points, or
    `beyond` it, by a bound that holds at all looks together with a probability of 95%
    (`xpubench.measure.sequential`) or, where all were read, by their count."""

    reference: str
    limit_points: float
    read: int
    total: int
    gained: int
    lost: int
    decided: Literal["within", "beyond"] | None = None


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a task: `acc` and its standard error, the perplexity of the right answers and its
    standard error (of tasks that score one text an item), all of lm-eval's metrics in `metrics` (None where
    one is not a number), and how they were computed. `partial` means that only some of the items were
    scored, and `decision` is that of a run with `--until-decided`.

    `tokens_per_s` counts the tokens that were scored without padding, whose share of all positions is
    `padding`. `share_of_peak` is that of the operations that they need (as in the plan, the output head for
    the scored rows alone) over their time and `peak_tflop_per_s`, the most of matrix products in the run's
    dtype that the device has shown to any process. All are None where texts were generated or nothing is
    known."""

    task: str
    task_version: str
    acc: float | None
    acc_stderr: float | None
    perplexity: float | None
    perplexity_stderr: float | None
    n: int
    partial: bool
    metrics: dict[str, float | None]
    items: list[Item]
    items_per_s: float
    truncated: int
    batch_tokens: int | None
    batch_size: int | None
    padding_side: str
    scores_rows_alone: bool
    lm_eval_version: str
    reference: PublishedAccuracy | None = None
    decision: Decision | None = None
    tokens_per_s: float | None = None
    padding: float | None = None
    share_of_peak: float | None = None
    peak_tflop_per_s: float | None = None


class ReferenceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """From where on a divergence is a warning, and a failure: the mean KL divergence in nats, and the share
    of positions with the same most probable token."""

    kl_warning: float
    kl_failure: float
    agreement_warning: float
    agreement_failure: float


class WeightsFingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Hexadecimal SHA-256 digests of a checkpoint's config and of sizes and samples of its weights, by which
    two checkpoints of one name are told apart."""

    config: str
    weights: str


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How far the tokens are from a reference's (see `xpubench.accuracy.divergence`). `mean_kl` is None for a
    stack that hides its logits. `verdict` is what the limits make of it; earlier records have none."""

    reference: str
    top1_agreement: float
    mean_kl: float | None
    first_divergence: list[int | None]
    positions: int
    limits: ReferenceLimits | None = None
    verdict: Literal["ok", "warning", "failure"] | None = None


class Collectives(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a rank spent in collectives in one generation of the workload, and their number."""

    rank: int
    generation_ns: int
    collectives: int
    collectives_ns: int


class OperatorResult(msgspec.Struct, frozen=True, kw_only=True):
    """One operator at one shape, compared with float64 on the CPU. `error` is the largest difference relative
    to the value's magnitude plus the root mean square of its row (None where a result is NaN or infinite),
    and `limit` the largest that rounding explains. An operator is right, wrong, failed with the `message`, or
    one that the device need not have and refused. The rates are those of the fastest of `times_ns`."""

    operator: str
    rows: int
    shape: str
    state: Literal["right", "wrong", "failed", "refused"]
    limit: float
    error: float | None = None
    times_ns: list[int] = []
    gb_per_s: float | None = None
    tflop_per_s: float | None = None
    message: str | None = None

    @property
    def problem(self) -> str:
        """What is wrong with it, in words."""
        where = f"{self.operator} at {self.rows} row{'s' * (self.rows != 1)}, {self.shape}"
        if self.message is not None:
            return f"{where}: {self.message}"
        error = "NaN or infinite" if self.error is None else f"error {self.error:.2g}"
        return f"{where}: {error}, rounding explains {self.limit:.2g}"


class OperatorChecks(msgspec.Struct, frozen=True, kw_only=True):
    """The operators of torch on the run's device, in its dtype and at its model's shapes, compared with
    float64 on the CPU when they were `created`: how many were `right` and which were not. A result serves
    later runs on the same device, driver, versions and variables unless an operator was wrong or failed."""

    created: str
    device: str
    dtype: str
    right: int
    others: list[OperatorResult]

    def problems(self, *states: str) -> list[str]:
        """The operators in one of these states, in words."""
        return [one.problem for one in self.others if one.state in states]


class TokenChecks(msgspec.Struct, frozen=True, kw_only=True):
    """How the tokens of the timed generations were looked at (`xpubench.accuracy.timed`): the generations
    that were compared with an earlier one of the same prompt, those that parted from it at a near tie, the
    sequences that a forward pass scored, the largest distance of a token from the most probable one in
    standard deviations of the logits, the limit of what rounding explains, and whether every timed step's
    logits were seen to be finite and not all the same (a stack that hides them does not show it). `checks_s`
    is the time of all checks of the run, in seconds, without the generation that begins the warm-up."""

    compared: int
    different: int
    scored: int
    regret: float | None
    regret_limit: float
    logits_seen: bool
    checks_s: float


class NeighbourChecks(msgspec.Struct, frozen=True, kw_only=True):
    """How far the logits of a row moved when other rows stood beside it (`xpubench.accuracy.neighbours`), in
    standard deviations of the logits, 0 where their bits stayed; the limit of what rounding explains; and
    whether the same batch gave the same bits twice."""

    repeatable: bool
    difference: float
    limit: float


class RunChecks(msgspec.Struct, frozen=True, kw_only=True):
    """The checks of a run: how far the guide for Intel GPUs validated the model, the number of new tokens,
    whether every step's logits were finite, the cache that was really used, how the timed tokens were
    checked, and how far a row's logits depend on the rows beside it. None stands for what was not checked or
    what the stack hides."""

    validation: str | None = None
    new_tokens: int | None = None
    logits_finite: bool | None = None
    cache: str | None = None
    cache_positions: int | None = None
    collectives: list[Collectives] | None = None
    operators: OperatorChecks | None = None
    tokens: TokenChecks | None = None
    neighbours: NeighbourChecks | None = None


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """The new tokens of the first sequence of the untimed generation, and their text for a prompt of text."""

    first_token_ids: list[int]
    first_text: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run: its spec, its environment, its outcome, and the warnings about it.

    `plan` is what the run was expected to need, `bandwidth` and `peak` what the device reached in the same
    process, `runtime` what was really loaded, and `fingerprint` which checkpoint (None for dummy weights). A
    latency run has samples, a latency summary and sometimes a divergence, an accuracy run has an accuracy and
    its own summary; a failed run has a failure and what it had by then. `explanation` says where a token's
    time went, and `expectation` what it was expected to be.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    created: str
    spec: RunSpec | AccuracySpec
    environment: Environment
    status: Literal["ok"] | FailureClass
    failure: Failure | None = None
    samples: Samples = Samples()
    summary: LatencySummary | AccuracySummary | None = None
    runtime: Description | None = None
    fingerprint: WeightsFingerprint | None = None
    bandwidth: Bandwidth | None = None
    peak: MatrixPeak | None = None
    plan: Plan | None = None
    checks: RunChecks = RunChecks()
    output: Output | None = None
    accuracy: Accuracy | None = None
    divergence: Divergence | None = None
    explanation: Explanation | None = None
    expectation: Expectation | None = None
    warnings: list[str] = []

    @property
    def latency(self) -> LatencySummary | None:
        """The summary of a successful latency run."""
        return self.summary if isinstance(self.summary, LatencySummary) else None


def now() -> str:
    """The time in UTC in the record's format."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def encode(record: Record) -> bytes:
    """The record as one line of JSON."""
    return msgspec.json.encode(record)


# Converts the JSON of each schema version to the present one. A new version adds an entry and keeps the
# others.
READERS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: from_version_1, 2: lambda data: data}


def decode(text: bytes | str) -> Record:
    """The record in a JSON text of any schema version so far; UserError when there is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}") from error
    return _record_of(data)


def decode_all(text: bytes) -> Iterator[Record]:
    """The records of a text that holds any number of them, not necessarily one a line. UserError names the
    line of the first text that is not a record."""
    decoder, place, whole = json.JSONDecoder(), 0, ""
    try:
        whole = text.decode().rstrip()
        while place < len(whole):
            data, end = decoder.raw_decode(whole, place)
            yield _record_of(data)
            space = SPACE.match(whole, end)
            place = space.end() if space else end
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else f"not JSON: {error}"
        line = f" (from line {1 + whole.count(chr(10), 0, place)})" if place else ""
        raise UserError(why + line) from error


def _record_of(data: Any) -> Record:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or version not in READERS:
        raise UserError(f"not a record of this tool (schema_version {version!r}; known: {sorted(READERS)})")
    try:
        return msgspec.convert(READERS[version](data), Record)
    except (msgspec.ValidationError, UserError) as error:
        raise UserError(f"not a whole record: {error}") from error


def read_record(path: Path) -> Record:
    """The record in the file `path`; UserError when it cannot be read or is not a record."""
    return _read(path, decode)


def read_records(path: Path) -> list[Record]:
    """The records in the file `path`, such as a baseline; UserError when it cannot be read or holds anything
    else."""
    return _read(path, lambda text: list(decode_all(text)))


def _read(path: Path, decoded: Callable[[bytes], T]) -> T:
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} is no record that can be read: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"{path} is {error}") from error
