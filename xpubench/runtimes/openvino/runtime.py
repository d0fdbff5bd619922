"""What OpenVINO's three runtimes share: the checks, the export and the description of their IR."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
import torch

from xpubench.errors import RunFailure, UserError, unknown
from xpubench.files import expanded
from xpubench.measure.rounding import UNIT_ROUNDOFF
from xpubench.process.child import run_child
from xpubench.record import WeightsFingerprint
from xpubench.runtimes.base import Device, Generator, Loader, Origin, not_as_asked
from xpubench.runtimes.openvino import ir
from xpubench.runtimes.openvino.device import check_device, device_named, measured_device, ran_elsewhere
from xpubench.runtimes.openvino.options import INFERENCE, IR_FILE, WeightFormat, family, may_use_npu
from xpubench.runtimes.openvino.recipe import (
    ExportOrder,
    ExportRecipe,
    is_ir,
    read_recipe,
)
from xpubench.runtimes.openvino.stack import import_openvino
from xpubench.runtimes.openvino.tokenizer import ir_tokenizer
from xpubench.runtimes.openvino.tokenizer_export import doubts_of_tokenizer
from xpubench.runtimes.options import RuntimeDescription
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import Subject, Workload
from xpubench.weights.lora import check_adapter
from xpubench.weights.pretrained import ending_of, load_tokenizer
from xpubench.weights.source import read_config, source_of

EXPORT = "xpubench.runtimes.openvino.export"
NEEDED_INPUTS = {"input_ids", "attention_mask", "beam_idx"}


class OpenVinoRuntime(Loader, Generator):
    """A loaded IR and its tokenizer. With `merges_lora`, an adapter is merged before the export.
    `own_properties` are the properties that the runtime takes in addition to those of the device's plugin.
    With `own_tokenizer`, texts go through the tokenizer's IRs where these lie beside the model's."""

    merges_lora: ClassVar[bool] = True
    own_properties: ClassVar[tuple[str, ...]] = ()
    runs_on_npu: ClassVar[bool] = False
    own_tokenizer: ClassVar[bool] = True
    _compiled: Any = None
    _weight_bytes = _step_weight_bytes = 0

    def __init__(self, subject: Subject, directory: Path) -> None:
        self.subject = subject
        self.directory = directory
        self.kept = read_recipe(directory)
        self.asked = ir.properties(subject)
        # The config is read as JSON, because transformers' config classes take two seconds to import.
        self.config = read_config(str(directory), revision=None, trust_remote_code=subject.trust_remote_code)
        tokenizer = load_tokenizer(directory, subject.trust_remote_code)
        coder = ir_tokenizer(directory) if self.own_tokenizer else None
        self.tokenizer = "transformers" if coder is None else "openvino"
        size = _vocab_size(self.config)
        ending = ending_of(directory)
        self.vocabulary = Vocabulary(subject.model, size, tokenizer, self.config.get, coder, ending)
        # torch has one thread while OpenVINO works, because OpenMP threads that spin after torch's own work
        # would take the cores from oneTBB's threads.
        self._torch_threads = torch.get_num_threads()
        torch.set_num_threads(1)

    @classmethod
    def first_device(cls) -> str:
        found = map(family, import_openvino().Core().available_devices)
        return "xpu" if "GPU" in found else "cpu"

    @classmethod
    def device(cls, subject: Subject) -> Device:
        name = ir.options_of(subject).device
        check_device(name)
        return device_named(name, subject.device)

    @classmethod
    def check(cls, subject: Subject) -> None:
        if subject.weights == "dummy":
            raise UserError(
                "--dummy-weights are made by PyTorch; OpenVINO's runtimes need a checkpoint or an IR"
            )
        options, core = ir.options_of(subject), import_openvino().Core()
        check_device(options.device)
        if may_use_npu(options.device) and not cls.runs_on_npu:
            raise UserError(
                "an NPU runs no language models with dynamic shapes; --runtime openvino-genai runs them there"
            )
        plugin = ir.plugin_of(subject)
        known = [*ir.supported(core, plugin), *cls.own_properties]
        for name in options.config:
            if name not in known:
                raise unknown(f"property of OpenVINO's {plugin}", name, known)
        ir.core_of(subject, without=cls.own_properties)
        if is_ir(subject.model) and options.weight_format is not None:
            raise UserError(f"{subject.model} is already an IR; leave out --weight-format")

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        """Makes sure that the subject's IR exists and is complete. A checkpoint whose IR is not in the cache
        is exported in another process, so that the export's memory and threads are not the run's."""
        if is_ir(subject.model) and subject.lora is not None and cls.merges_lora:
            raise UserError(
                "a LoRA adapter is merged before the export: give the checkpoint with -m, or export it with "
                "xpubench export --lora; --runtime openvino-genai applies one to an IR"
            )
        if subject.lora is not None:
            config = read_config(
                subject.model, revision=subject.revision, trust_remote_code=subject.trust_remote_code
            )
            check_adapter(Path(subject.lora), config)
        if not is_ir(subject.model):
            recipe, directory = cls._wanted(subject)
            if directory.is_dir():
                say(f"the export is in the cache: {directory}")
            else:
                name = f"{recipe.model} to OpenVINO, {recipe.weight_format}"
                say(f"exporting {name}; the next run finds it in the cache")
                order = msgspec.json.encode(ExportOrder(recipe=recipe, out=str(directory)))
                run_child([sys.executable, "-m", EXPORT], order, say, "the export")
        _check_ir(cls._directory(subject))

    @classmethod
    def operators(cls, *_: object) -> None:
        """None, because OpenVINO has operators of its own."""

    @classmethod
    def load(cls, subject: Subject) -> Self:
        return cls(subject, cls._directory(subject))

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        if not is_ir(subject.model):
            return super().origin(subject)
        kept = read_recipe(expanded(subject.model))
        if kept is None:
            return None
        recipe = kept["recipe"]
        lora = recipe.get("lora") or subject.lora
        return Origin(model=recipe["model"], revision=recipe.get("revision"), lora=lora)

    @classmethod
    def fingerprint(cls, subject: Subject) -> WeightsFingerprint | None:
        kept = read_recipe(cls._directory(subject))
        checkpoint = kept.get("checkpoint") if kept else None
        if checkpoint is None:
            return None
        return WeightsFingerprint(config=checkpoint["config"], weights=checkpoint["weights"])

    def prepare(self, workload: Workload) -> None:
        if workload.cache == "static":
            raise RunFailure(
                "unsupported", "OpenVINO keeps the cache inside the model; leave out --use-static-cache"
            )

    @property
    def rounding(self) -> str:
        """The coarsest of the precisions of inference and of the KV cache, and int8 where activations are
        quantized dynamically."""
        told = self.asked | self.in_effect()
        names = [str(told.get(name)) for name in ir.TYPES]
        quantized = str(told.get("DYNAMIC_QUANTIZATION_GROUP_SIZE", 0)) != "0"
        dtypes = [INFERENCE.get(name, "int8") for name in names] + ["int8"] * quantized
        return max(dtypes, key=UNIT_ROUNDOFF.__getitem__)

    @property
    def elsewhere(self) -> str | None:
        told = (self.applied() or {}).get("EXECUTION_DEVICES")
        return ran_elsewhere(ir.options_of(self.subject).device, self.subject.device, told)

    def kv_value_bytes(self, head_dim: int) -> float:
        return ir.kv_value_bytes(self.subject, self._compiled, head_dim)

    def applied(self) -> dict[str, Any] | None:
        """The properties of the compiled model; None where the stack does not show that model."""
        return None if self._compiled is None else ir.applied(self._compiled, self.asked)

    def in_effect(self) -> dict[str, Any]:
        """The properties that the device gives the model."""
        return self.applied() or {}

    def described(self) -> dict[str, Any]:
        return {
            "ir": self.kept,
            "tokenizer": self.tokenizer,
            "stored": ir.stored_precision(self.directory / IR_FILE),
            "asked": self.asked,
            "applied": self.applied(),
            "weight_bytes": self._weight_bytes,
            "step_weight_bytes": self._step_weight_bytes,
            "torch_threads": 1,
        }

    def describe(self) -> RuntimeDescription:
        return self.subject.options.description(**self.described())

    def doubts(self) -> list[str]:
        told = self.in_effect()
        found = not_as_asked(self.asked, told, *ir.TYPES)
        cache = told.get("KV_CACHE_PRECISION", "f32")
        if self.subject.dtype == "float32" and cache != "f32" and "KV_CACHE_PRECISION" not in self.asked:
            found.append(f"the KV cache is {cache}, OpenVINO's default; --ov-config KV_CACHE_PRECISION=f32")
        if self.tokenizer == "openvino":
            found += doubts_of_tokenizer(self.kept or {})
        if (where := self.elsewhere) is not None:
            name = ir.options_of(self.subject).device
            measured = measured_device(name, self.subject.device)
            ran = f"one of the devices of {name}" if where == name else where
            found.append(f"the model ran on {ran}, and {measured} was measured: no MBU; name one device")
        return found

    def checksum(self) -> int | None:
        return None

    def close(self) -> None:
        self._compiled = None
        torch.set_num_threads(self._torch_threads)

    @classmethod
    def _directory(cls, subject: Subject) -> Path:
        return expanded(subject.model) if is_ir(subject.model) else cls._wanted(subject)[1]

    @classmethod
    def _wanted(cls, subject: Subject) -> tuple[ExportRecipe, Path]:
        """The export that the subject's checkpoint needs, and its path in the cache, existing or not."""
        from xpubench.runtimes.openvino.export import cached

        plain: WeightFormat = "fp32" if subject.dtype == "float32" else "fp16"
        recipe = ExportRecipe(
            model=subject.model,
            weight_format=ir.options_of(subject).weight_format or plain,
            revision=subject.revision,
            lora=subject.lora if cls.merges_lora else None,
            trust_remote_code=subject.trust_remote_code,
            allow_pickle=subject.allow_pickle,
        )
        return recipe, cached(recipe, source_of(recipe))


def _vocab_size(config: dict[str, Any]) -> int:
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    if not isinstance(size, int):
        raise RunFailure(
            "bad_model", "the IR's config.json does not say how large the vocabulary is (vocab_size)"
        )
    return size


def _check_ir(directory: Path) -> None:
    xml = directory / IR_FILE
    binary = xml.with_suffix(".bin")
    if not binary.is_file():
        raise RunFailure("bad_model", f"{xml} has no {binary.name} beside it; export it again")
    try:
        model = import_openvino().Core().read_model(xml)
    except RuntimeError as error:
        raise RunFailure("bad_model", f"{xml} is not a complete IR: {ir.last_line(error)}") from error
    inputs = {one.get_any_name() for one in model.inputs}
    outputs = {one.get_any_name() for one in model.outputs}
    if not inputs >= NEEDED_INPUTS or "logits" not in outputs:
        raise RunFailure(
            "unsupported",
            f"{xml} is no stateful language model: it takes {', '.join(sorted(inputs))} and gives "
            f"{', '.join(sorted(outputs))}; xpubench export makes one",
        )
