"""The flags, options and descriptions of OpenVINO's runtimes."""

import argparse
import json
import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from xpubench.errors import UserError, unknown
from xpubench.runtimes.options import Flag, RuntimeDescription, RuntimeOptions, flag, type_bytes, was_given

WeightFormat = Literal["fp32", "fp16", "int8", "int4"]

IR_FILE = "openvino_model.xml"
DEVICES = {"cpu": "CPU", "xpu": "GPU", "npu": "NPU"}
KINDS = {name: kind for kind, name in DEVICES.items()}
# OpenVINO's devices that distribute the work to others, such as AUTO:GPU,CPU.
SHARING = ("AUTO", "MULTI", "HETERO")
# The property that the list in such a name sets.
PRIORITIES = "MULTI_DEVICE_PRIORITIES"
# From the finest to the coarsest.
DTYPES = ("float32", "float16", "bfloat16")
STORED = {"fp32": "float32", "fp16": "float16", "int8": "int8", "int4": "int4"}
INFERENCE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# The settings of a compression, in the order in which a recipe is printed.
SETTINGS = (
    *("weight_format", "sym", "ratio", "group_size", "group_size_fallback", "backup_precision", "all_layers"),
    *("awq", "scale_estimation", "gptq", "lora_correction", "sensitivity_metric", "dataset", "num_samples"),
    *("dq_group_size", "ignored_scope", "predefined"),
)
BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}
FLAGS = (
    flag(
        "--ov-device",
        metavar="NAME",
        help="OpenVINO's name, such as GPU.1, NPU, AUTO:GPU,CPU (default: as --device, cpu: CPU, xpu: GPU)",
    ),
    flag(
        "--ov-config", nargs="+", metavar="KEY=VALUE", help="properties by OpenVINO's names, or a JSON object"
    ),
    flag(
        "--weight-format",
        choices=get_args(WeightFormat),
        help="weights of the export that a checkpoint needs first (default: fp32 or fp16, by --dtype)",
    ),
    flag("--kv-cache-precision", choices=("u8", "f16", "bf16")),
    flag("--dynamic-quantization-group-size", type=int, choices=(0, 32, 64, 128)),
    flag("--performance-hint", choices=("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")),
    flag("--inference-precision", choices=("f32", "bf16", "f16"), help="default: as --dtype says"),
    flag("--num-streams", type=int, metavar="N"),
    flag("--threads", type=int, metavar="N", help="threads of the inference on the CPU"),
)
GENAI_FLAGS = (
    flag("--draft-model", metavar="IR", help="speculative decoding with the model in this directory"),
    flag("--num-assistant-tokens", type=int, metavar="N", help="drafted tokens in a step"),
    flag("--prompt-lookup", action="store_true", help="draft tokens from the prompt"),
    flag("--ov-scheduler", nargs="+", metavar="KEY=VALUE", help="SchedulerConfig, such as cache_size=2"),
)


class OpenVinoDescription(RuntimeDescription, kw_only=True, frozen=True):
    """A loaded IR. `ir` is the recipe that `xpubench export` keeps beside it (None where another tool made
    the IR), `stored` the type of its weights, and `tokenizer` the library that encodes and decodes texts.
    `asked` are the properties requested of the device's plugin and `applied` those that the compiled model
    reports, both by OpenVINO's own names (None where the stack does not show them)."""

    ir: dict[str, Any] | None = None
    stored: str | None = None
    tokenizer: Literal["openvino", "transformers"] | None = None
    asked: dict[str, Any] = {}
    applied: dict[str, Any] | None = None
    torch_threads: int | None = None

    @property
    def precision_class(self) -> str | None:
        stored = self.stored or STORED.get(self._recipe.get("weight_format", ""))
        if stored is not None and stored not in DTYPES:
            return stored
        computed = INFERENCE.get(str(self._inference_precision))
        known = [one for one in (stored, computed) if one is not None]
        return max(known, key=DTYPES.index, default=None)

    @property
    def _inference_precision(self) -> object:
        return (self.applied or self.asked).get("INFERENCE_PRECISION_HINT")

    @property
    def recipe_text(self) -> str | None:
        told = [
            f"{name} {value}" for name, value in self._recipe.items() if name in SETTINGS and was_given(value)
        ]
        return ", ".join(["NNCF", *told]) if told else None

    @property
    def made_from(self) -> str | None:
        return self._recipe.get("model")

    @property
    def adapter(self) -> str | None:
        return self._recipe.get("lora")

    @property
    def _recipe(self) -> dict[str, Any]:
        return (self.ir or {}).get("recipe") or {}


class OptimumDescription(OpenVinoDescription, kw_only=True, frozen=True, tag="openvino"):
    """An IR under transformers' `generate`, with the class of its model."""

    model_class: str | None = None


class GenAiDescription(OpenVinoDescription, kw_only=True, frozen=True, tag="openvino-genai"):
    """An IR in GenAI's pipeline: the settings of its scheduler (None without continuous batching), and
    whether prompts reuse the cache of a prefix that they share with an earlier one. The pipeline does not
    show its model: `granted` is the inference precision that its device gives another model that asks for the
    same."""

    scheduler: str | None = None
    prefix_caching: bool | None = None
    granted: str | None = None

    @property
    def _inference_precision(self) -> object:
        return self.granted or super()._inference_precision


class OpenVinoBaseDescription(OpenVinoDescription, kw_only=True, frozen=True, tag="openvino-base"):
    """An IR in an infer request. With `last_row_alone`, its output head sees only the last position."""

    last_row_alone: bool | None = None


class OpenVinoOptions(RuntimeOptions, kw_only=True, frozen=True):
    """The options of all of OpenVINO's runtimes. `device` is OpenVINO's name of the device, and
    `weight_format` belongs to the export that a checkpoint needs first. The other fields are properties of
    the device's plugin, which chooses where they are None; `config` holds more properties by OpenVINO's own
    names."""

    packages: ClassVar[tuple[str, ...]] = (
        *("openvino", "openvino-genai", "openvino-tokenizers", "optimum", "optimum-intel", "nncf"),
    )
    diagnosis: ClassVar[str | None] = "xpubench.runtimes.openvino.diagnosis"
    one_graph_on: ClassVar[tuple[str, ...]] = tuple(DEVICES)
    int4_method: ClassVar[str | None] = None
    int4_refusal: ClassVar[str] = "OpenVINO has its own INT4: give --weight-format int4 instead of --woq"
    flags: ClassVar[tuple[Flag, ...]] = FLAGS
    flags_title: ClassVar[str] = "OpenVINO"

    device: str = "CPU"
    weight_format: WeightFormat | None = None
    kv_cache_precision: str | None = None
    dynamic_quantization_group_size: int | None = None
    performance_hint: str | None = None
    inference_precision: str | None = None
    num_streams: int | None = None
    threads: int | None = None
    config: dict[str, str] = {}

    def __post_init__(self) -> None:
        _check_positive("--num-streams", self.num_streams)
        _check_positive("--threads", self.threads)

    @classmethod
    def fields_from(cls, args: argparse.Namespace) -> dict[str, Any]:
        return super().fields_from(args) | {"config": pairs("--ov-config", args.ov_config)}

    @classmethod
    def device_kind(cls, args: argparse.Namespace, device: str) -> str:
        name = args.ov_device
        if name is None:
            return device
        named = named_devices(name)
        for one in named:
            if family(one) not in KINDS:
                raise unknown("device of OpenVINO", one, [*KINDS, *SHARING])
        if not named and (name == "MULTI" or shares(name) == "HETERO"):
            raise UserError(
                f"{shares(name)} chooses no devices itself; name them, such as {shares(name)}:GPU,CPU"
            )
        kinds = [KINDS[family(one)] for one in named]
        if args.device is not None and kinds and args.device not in kinds:
            raise UserError(f"--ov-device {name} is not --device {args.device}; leave one of the two out")
        # AUTO prefers a GPU, as the first of OpenVINO's devices is, unless its name excludes all of them.
        without_gpus = args.device is None and "GPU" in excluded_devices(name)
        return args.device or (kinds or ["cpu" if without_gpus else device])[0]

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        if device not in DEVICES:
            raise UserError(f"OpenVINO does not run on {device}; give --device cpu or xpu, or --ov-device")
        options = cls(device=args.ov_device or DEVICES[device], **cls.fields_from(args))
        if listed := options.config.get(PRIORITIES):
            raise UserError(f"name the devices in --ov-device AUTO:{listed} instead of {PRIORITIES}")
        return options

    @classmethod
    def from_version_1(cls, subject: dict[str, Any]) -> dict[str, Any]:
        own = subject.get("openvino") or {}
        return {name: own[name] for name in cls.__struct_fields__ if name in own}

    def identity(self) -> dict[str, Any]:
        # Schema version 1 included these two in the id even where they are empty, and the ids are kept.
        return {"runtime": self.name(), "openvino": {"config": {}, "scheduler": {}} | self.set_fields()}

    @property
    def words(self) -> list[str]:
        return [self.weight_format] if self.weight_format else []

    @property
    def precision(self) -> str | None:
        return self.weight_format

    def weight_bytes(self, model: str, parameters: int) -> int | None:
        binary = (Path(os.path.expanduser(model)) / IR_FILE).with_suffix(".bin")
        if binary.is_file():
            return binary.stat().st_size
        # Without a format, an export has the run's dtype, or the one of 16 bits where that has 16.
        return None if self.weight_format is None else int(parameters * BYTES[self.weight_format])

    @property
    def least_kv_value_bytes(self) -> float | None:
        # Where nobody asks for a type, a CPU takes u8, and a GPU may.
        asked = [value for name, value in self.config.items() if name.endswith("CACHE_PRECISION")]
        return min(map(type_bytes, [self.kv_cache_precision or "u8", *asked]))


class OptimumOptions(OpenVinoOptions, kw_only=True, frozen=True, tag="openvino"):
    """Optimum Intel under transformers' `generate`."""

    loader: ClassVar[str] = "xpubench.runtimes.openvino.optimum:OptimumRuntime"
    description: ClassVar[type[RuntimeDescription]] = OptimumDescription


class OpenVinoBaseOptions(OpenVinoOptions, kw_only=True, frozen=True, tag="openvino-base"):
    """OpenVINO's base runtime."""

    loader: ClassVar[str] = "xpubench.runtimes.openvino.base_runtime:BaseRuntime"
    description: ClassVar[type[RuntimeDescription]] = OpenVinoBaseDescription


class GenAiOptions(OpenVinoOptions, kw_only=True, frozen=True, tag="openvino-genai"):
    """GenAI's pipeline. A smaller IR in the directory `draft_model`, or with `prompt_lookup` the prompt,
    drafts `num_assistant_tokens` tokens in each step; `scheduler` holds fields of its SchedulerConfig."""

    loader: ClassVar[str] = "xpubench.runtimes.openvino.genai:GenAiRuntime"
    description: ClassVar[type[RuntimeDescription]] = GenAiDescription
    hides_logits: ClassVar[str | None] = (
        "GenAI's pipeline does not give logits; --runtime openvino-base or openvino scores the same IR"
    )
    flags: ClassVar[tuple[Flag, ...]] = (*FLAGS, *GENAI_FLAGS)

    draft_model: str | None = None
    num_assistant_tokens: int | None = None
    prompt_lookup: bool = False
    scheduler: dict[str, str] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("--num-assistant-tokens", self.num_assistant_tokens)

    @classmethod
    def fields_from(cls, args: argparse.Namespace) -> dict[str, Any]:
        if args.draft_model and args.prompt_lookup:
            raise UserError("--draft-model and --prompt-lookup are two ways to draft; give one")
        if args.num_assistant_tokens and not (args.draft_model or args.prompt_lookup):
            raise UserError("--num-assistant-tokens needs --draft-model or --prompt-lookup")
        return super().fields_from(args) | {"scheduler": pairs("--ov-scheduler", args.ov_scheduler)}


def family(device: str) -> str:
    """The family of a device's name, such as GPU for GPU.1."""
    return device.split(".")[0]


def shares(device: str) -> str | None:
    """The name of a device that distributes work to others, such as AUTO for AUTO:GPU,CPU; None for a device
    that computes itself."""
    name = device.split(":")[0]
    return name if name in SHARING else None


def named_devices(device: str) -> list[str]:
    """The devices that a name lists: GPU and CPU for AUTO:GPU,CPU, and none for AUTO."""
    if shares(device) is None:
        return [device]
    listed = device.partition(":")[2].split(",")
    # A minus excludes a device from AUTO's choice, and parentheses hold a device's number of requests.
    return [one.split("(")[0] for one in listed if one and not one.startswith("-")]


def excluded_devices(device: str) -> list[str]:
    """The devices that a name excludes: CPU for AUTO:-CPU."""
    listed = device.partition(":")[2].split(",") if shares(device) else []
    return [one[1:] for one in listed if one.startswith("-")]


def may_use_npu(device: str) -> bool:
    """Whether a name has an NPU among its devices. AUTO uses one only where it is listed."""
    return "NPU" in map(family, named_devices(device))


def pairs(name: str, given: list[str] | None) -> dict[str, str]:
    """The KEY=VALUE words, or the JSON object, that a flag was given; UserError for anything else. A value of
    the object that is no text stays JSON."""
    if given and given[0].lstrip().startswith("{"):
        try:
            fields: Any = json.loads(" ".join(given))
        except ValueError as error:
            raise UserError(f"{name} is neither KEY=VALUE nor a JSON object: {error}") from error
        if empty := [key for key, value in fields.items() if value is None]:
            raise UserError(f"{name} takes no null; give {empty[0]} a value, or leave it out")
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
    found = {}
    for word in given or []:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UserError(f"{name} takes KEY=VALUE, not {word!r}")
        found[key] = value
    return found


def _check_positive(flag_name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"{flag_name} must be at least 1, not {value}")
