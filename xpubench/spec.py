"""What to run: a subject (loaded once), a workload, and a protocol of measuring."""

import hashlib
import json
from typing import Any, Literal

import msgspec

from xpubench.errors import UserError
from xpubench.runtimes.registry import DEFAULT, Options, options_class

Dtype = Literal["float32", "bfloat16", "float16"]
Weights = Literal["pretrained", "dummy"]
Cache = Literal["dynamic", "static"]

WeightGrid = Literal["int4_fullrange", "int4_clip", "int4_asym"]
Head = Literal["int8", "high"]

DTYPE_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
# The fewest measured iterations that an always-valid interval needs.
LEAST_PAIRS = 5
GROUP_SIZES = (32, 64, 128, 256)
# neural-compressor's group size of a row.
WHOLE_ROW = -1


def check_group_size(size: int) -> None:
    """UserError for a group size that no kernel takes."""
    if size not in GROUP_SIZES:
        raise UserError(f"--group_size must be one of {', '.join(map(str, GROUP_SIZES))}, not {size}")


class Quantization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """INT4 weight-only quantization by rounding to nearest (RTN). The defaults are the recipe of the guide.

    Each group of `group_size` values in a row of a linear layer shares a scale, stored in `scale_dtype` (the
    grids are described in `xpubench.weights.int4.grids`). The token table and the output head are INT8 with a
    scale a row, or with `head` "high" stay in the model's precision, as do the modules whose names match a
    glob of `high_precision`. `compute_dtype` None stands for the run's dtype. `checkpoint` is the directory
    of a quantized model; with None, the model is quantized when it is loaded. A checkpoint of
    neural-compressor can have any group size, and with -1 each row is one group.
    """

    algorithm: Literal["RTN"] = "RTN"
    weight_dtype: WeightGrid = "int4_fullrange"
    group_size: int = 64
    scale_dtype: Dtype = "float16"
    compute_dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    head: Head = "int8"
    high_precision: tuple[str, ...] = ()
    checkpoint: str | None = None

    @property
    def title(self) -> str:
        """The recipe in a few words."""
        groups = "one group a row" if self.group_size == WHOLE_ROW else f"groups of {self.group_size}"
        return f"{self.algorithm} {self.weight_dtype} {groups}"


class Subject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is loaded once: a model with its weights, on a device, through a runtime. The type of `options`
    tells the runtime. `lora` is the directory of a PEFT adapter. `tp_size` is the number of ranks that share
    the model."""

    model: str
    device: str
    dtype: Dtype
    options: Options = msgspec.field(default_factory=options_class(DEFAULT))
    revision: str | None = None
    weights: Weights = "pretrained"
    trust_remote_code: bool = False
    allow_pickle: bool = False
    quantization: Quantization | None = None
    tp_size: int = 1
    lora: str | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("the model's name is empty; name one with -m (xpubench models lists them)")

    @property
    def runtime(self) -> str:
        """The name of the runtime."""
        return self.options.name()

    @property
    def weights_from(self) -> str:
        """The model or directory that the weights come from: the quantized checkpoint where there is one."""
        saved = self.quantization.checkpoint if self.quantization is not None else None
        return saved or self.model


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of one `generate` call. `input_tokens` is None where a text `prompt` sets the length."""

    input_tokens: int | None
    new_tokens: int
    batch_size: int = 1
    num_beams: int = 1
    cache: Cache = "dynamic"
    prompt: str | None = None

    def __post_init__(self) -> None:
        if (self.input_tokens is None) == (self.prompt is None):
            raise UserError("a workload takes either a number of input tokens or a prompt")
        if self.prompt == "":
            raise UserError("--prompt is empty; give a text, or leave it out for prompts of --input-tokens")
        try:
            (self.prompt or "").encode()
        except UnicodeEncodeError as error:
            raise UserError("--prompt is not valid UTF-8 text") from error
        _check_least("--input-tokens", self.input_tokens, 1)
        _check_least("--max-new-tokens", self.new_tokens, 1)
        _check_least("--batch-size", self.batch_size, 1)
        _check_least("--num-beams", self.num_beams, 1)

    def title(self, input_tokens: int | None) -> str:
        """The workload in a few words, with the prompt's length where it is known."""
        length = "text" if input_tokens is None else input_tokens
        search = "greedy" if self.num_beams == 1 else f"{self.num_beams} beams"
        return f"{length} in, {self.new_tokens} out, batch {self.batch_size}, {search}, {self.cache} cache"


def _check_least(flag: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UserError(f"{flag} must be at least {least}, not {value}")


class Protocol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often the workload runs. `num_iter` includes the warm-up: `num_iter - num_warmup` are measured, or
    fewer where the 95% interval of the next token latency sooner reaches no farther than `until_ci`, a share
    of the latency, from it. With `every_pair`, each measured prompt is generated from under both sync
    policies, else only as often as the interval of their ratio needs. The measured iterations are divided
    over `loads` loads of the subject, each with a warm-up of its own."""

    num_iter: int = 10
    num_warmup: int = 3
    seed: int = 0
    until_ci: float | None = None
    every_pair: bool = False
    loads: int = 1

    def __post_init__(self) -> None:
        _check_least("--num-warmup", self.num_warmup, 0)
        if self.num_iter <= self.num_warmup:
            limit = f"must be above --num-warmup {self.num_warmup}, or nothing is measured"
            raise UserError(f"--num-iter {self.num_iter} counts the warm-up too and {limit}")
        _check_least("--seed", self.seed, 0)
        _check_least("--loads", self.loads, 1)
        if self.loads > self.num_iter - self.num_warmup:
            needed = self.num_warmup + self.loads
            raise UserError(
                f"--loads {self.loads} divides the measured iterations; --num-iter must be at least {needed}"
            )
        if self.until_ci is None:
            return
        if self.loads > 1:
            raise UserError(
                "--until-ci takes the iterations for independent, and those of one load are not; leave out "
                "--loads or --until-ci"
            )
        if not 0 < self.until_ci < 1:
            raise UserError(f"--until-ci must be above 0 and below 100 percent, not {100 * self.until_ci:g}")
        if self.num_iter - self.num_warmup < LEAST_PAIRS:
            least = f"has its interval from {LEAST_PAIRS} measured iterations up"
            raise UserError(
                f"--until-ci {least}; --num-iter must be at least {LEAST_PAIRS + self.num_warmup}"
            )


class AccuracyTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An lm-eval task. `limit` is the number of items, None for all; `data` is a local file of passages and
    `data_sha256` the digest of its content; `batch_size` 0 is automatic. With
    `until_decided`, items in an order drawn by `seed` are scored until they decide against a reference."""

    name: str
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int = 0
    data: str | None = None
    data_sha256: str | None = None
    until_decided: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_least("--acc-iter", self.limit, 1)
        _check_least("--num-fewshot", self.num_fewshot, 0)
        _check_least("--seed", self.seed, 0)


class RunSpec(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="latency"
):
    """All of one latency run. Specs with equal subjects share one load."""

    subject: Subject
    workload: Workload
    protocol: Protocol

    def __post_init__(self) -> None:
        if self.protocol.until_ci is not None and self.workload.new_tokens == 1:
            raise UserError("--until-ci looks at the next token latency; --max-new-tokens must be at least 2")

    @property
    def id(self) -> str:
        """A stable hash of what differs from the defaults, so that a new field does not change old ids."""
        return _hash(self)


class AccuracySpec(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="accuracy"
):
    """All of one accuracy run."""

    subject: Subject
    task: AccuracyTask

    @property
    def id(self) -> str:
        """As of a latency run. Of a file of passages, the content counts and the path does not."""
        return _hash(msgspec.structs.replace(self, task=msgspec.structs.replace(self.task, data=None)))


def _hash(spec: RunSpec | AccuracySpec) -> str:
    parts = {name: _set_fields(getattr(spec, name)) for name in spec.__struct_fields__}
    subject, recipe = parts["subject"], spec.subject.quantization
    subject.pop("options", None)
    subject |= spec.subject.options.identity()
    if recipe is not None:
        # The recipe determines the weights, wherever they are stored.
        subject["quantization"] = msgspec.structs.replace(recipe, checkpoint=None)
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_set_fields).encode()).hexdigest()[:16]


def _set_fields(part: msgspec.Struct) -> dict[str, Any]:
    return {
        field.name: value
        for field in msgspec.structs.fields(part)
        if (value := getattr(part, field.name)) != field.default
    }
