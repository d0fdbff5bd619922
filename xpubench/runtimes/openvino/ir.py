"""What OpenVINO's three runtimes share: the IR of a subject, its properties, and what was really applied."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from xpubench.errors import RunFailure, UserError, unknown
from xpubench.process.child import run_child
from xpubench.runtimes.base import Origin
from xpubench.runtimes.openvino.options import IR_FILE, OpenVinoOptions
from xpubench.runtimes.openvino.recipe import ExportOrder, ExportRecipe, is_ir, read_recipe
from xpubench.runtimes.openvino.stack import import_openvino
from xpubench.runtimes.pytorch.runtime import not_as_asked
from xpubench.spec import DTYPE_BYTES, Subject
from xpubench.weights.lora import check_adapter
from xpubench.weights.source import read_config, source_of

PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
# Read back from the compiled model, where its device has them.
READ_BACK = (
    "EXECUTION_DEVICES",
    "INFERENCE_PRECISION_HINT",
    "KV_CACHE_PRECISION",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "PERFORMANCE_HINT",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
)
NEEDED_INPUTS = {"input_ids", "attention_mask", "beam_idx"}
# A quantized cache's scale and zero point in float32, for each group of values or, of size 0, each head.
CACHE_SCALE_BYTES = 8
# What lies between a constant and the operation that uses the weight: decompression and layout.
LAYOUT = {"Convert", "Subtract", "Multiply", "Reshape", "Transpose"}


def options_of(subject: Subject) -> OpenVinoOptions:
    """The subject's options."""
    assert isinstance(subject.options, OpenVinoOptions)
    return subject.options


def check(subject: Subject, also: tuple[str, ...] = ()) -> None:
    """UserError for a device without a driver, an unknown property (`also` are known ones), or weights that
    cannot be."""
    if subject.weights == "dummy":
        raise UserError("--dummy-weights are made by PyTorch; OpenVINO's runtimes need a checkpoint or an IR")
    options = options_of(subject)
    core = import_openvino().Core()
    found = core.available_devices
    if options.device != "AUTO" and not any(one.startswith(options.device) for one in found):
        raise UserError(
            f"OpenVINO finds no {options.device} here (there is: {', '.join(found)}); a GPU or an NPU "
            "needs its driver, and --ov-device CPU runs without one"
        )
    known = [str(name) for name in core.get_property(options.device, "SUPPORTED_PROPERTIES")]
    known += also
    for name in options.config:
        if name not in known:
            raise unknown(f"property of OpenVINO's {options.device}", name, known)
    core_of(subject, without=also)
    if is_ir(subject.model) and options.weight_format is not None:
        raise UserError(f"{subject.model} is an IR already; leave out --weight-format")


def core_of(subject: Subject, without: tuple[str, ...] = ()) -> Any:
    """A core whose device has the subject's properties, but for those `without`. UserError for a value that
    the device does not take. AUTO takes them with a model alone."""
    device, core = options_of(subject).device, import_openvino().Core()
    if device == "AUTO":
        return core
    try:
        core.set_property(
            device, {name: value for name, value in properties(subject).items() if name not in without}
        )
        core.get_property(device, "FULL_DEVICE_NAME")  # properties are looked at when the device is
    except RuntimeError as error:
        raise UserError(f"OpenVINO's {device}: {str(error).strip().splitlines()[-1]}") from error
    return core


def fetch(subject: Subject, say: Callable[[str], None], *, merge_lora: bool = True) -> None:
    """Makes sure that the subject's IR is there and whole: exports the checkpoint unless the cache has it.

    The export runs in a process of its own, so that its memory and its threads are not the run's.
    """
    if is_ir(subject.model) and subject.lora is not None and merge_lora:
        raise UserError(
            "a LoRA adapter is merged before the export: give the checkpoint with -m, or export it with "
            "xpubench export --lora; --runtime openvino-genai applies one to an IR"
        )
    _check_lora(subject)
    if not is_ir(subject.model):
        recipe, directory = _wanted(subject, merge_lora)
        if directory.is_dir():
            say(f"the export is in the cache: {directory}")
        else:
            _export(recipe, directory, say)
    _check_ir(ir_directory(subject, merge_lora=merge_lora))


def _check_lora(subject: Subject) -> None:
    """UserError for an adapter that does not fit, before the minutes of an export."""
    if subject.lora is not None:
        config = read_config(
            subject.model, revision=subject.revision, trust_remote_code=subject.trust_remote_code
        )
        check_adapter(Path(subject.lora), config)


def ir_directory(subject: Subject, *, merge_lora: bool = True) -> Path:
    """Where the subject's IR lies."""
    if is_ir(subject.model):
        return Path(subject.model).expanduser()
    return _wanted(subject, merge_lora)[1]


def properties(subject: Subject) -> dict[str, Any]:
    """What the device's plugin is asked for. `config`, by OpenVINO's own names, wins."""
    options = options_of(subject)
    asked = {
        "INFERENCE_PRECISION_HINT": options.inference_precision or PRECISIONS[subject.dtype],
        "KV_CACHE_PRECISION": options.kv_cache_precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _text(options.dynamic_quantization_group_size),
        "PERFORMANCE_HINT": options.performance_hint,
        "NUM_STREAMS": _text(options.num_streams),
        "INFERENCE_NUM_THREADS": options.threads,
    }
    return {name: value for name, value in asked.items() if value is not None} | options.config


def applied(compiled: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The compiled model's properties as it tells them, as plain JSON values."""
    known = [str(name) for name in compiled.get_property("SUPPORTED_PROPERTIES")]
    return {
        name: _plain(compiled.get_property(name))
        for name in dict.fromkeys([*READ_BACK, *asked])
        if name in known
    }


def kept_recipe(directory: Path) -> dict[str, Any] | None:
    """What the IR was made of, None where other tools made it."""
    return read_recipe(directory)


def origin(subject: Subject) -> Origin | None:
    """The checkpoint behind a subject, by its recipe where it is an IR; None of an IR without one."""
    if not is_ir(subject.model):
        return Origin(model=subject.model, revision=subject.revision, lora=subject.lora)
    kept = read_recipe(Path(subject.model).expanduser())
    if kept is None:
        return None
    recipe = kept["recipe"]
    return Origin(
        model=recipe["model"], revision=recipe.get("revision"), lora=recipe.get("lora") or subject.lora
    )


def doubts(subject: Subject, asked: dict[str, Any], applied: dict[str, Any] | None) -> list[str]:
    """What of the asked properties the compiled model tells otherwise, and a KV cache that is less precise
    than the float32 that was asked for."""
    told = applied or {}
    found = not_as_asked(asked, told, "INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION")
    cache = told.get("KV_CACHE_PRECISION", "f32")
    if subject.dtype == "float32" and cache != "f32" and "KV_CACHE_PRECISION" not in asked:
        found.append(f"the KV cache is {cache}, OpenVINO's default; --ov-config KV_CACHE_PRECISION=f32")
    return found


def weight_sizes(model: Any) -> tuple[int, int]:
    """Bytes of an IR's weights, and of those that one decoding step reads: all but the tables that are only
    looked up in."""
    total = read = 0
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Constant" and op.get_byte_size() > 1024:
            total += op.get_byte_size()
            if set(_users(op)) != {"Gather"}:
                read += op.get_byte_size()
    return total, read


def kv_value_bytes(subject: Subject, owner: Any, head_dim: int, *where: str) -> float:
    """Bytes of one value of the KV cache, scales included, by the properties of a compiled model or, where
    `where` names a device, of a core."""
    known = [str(name) for name in owner.get_property(*where, "SUPPORTED_PROPERTIES")]

    def of(side: str) -> float:
        names = (f"{side}_CACHE_PRECISION", "KV_CACHE_PRECISION", "INFERENCE_PRECISION_HINT")
        precisions = (owner.get_property(*where, name) for name in names if name in known)
        # A cache that stays in the precision of inference has a type without bits; AUTO tells of none.
        value = next((one.bitwidth / 8 for one in precisions if one.bitwidth), DTYPE_BYTES[subject.dtype])
        if value >= 2:
            return value
        size = f"{side}_CACHE_GROUP_SIZE"
        group = int(owner.get_property(*where, size)) if size in known else 0
        return value + CACHE_SCALE_BYTES / (group or head_dim)

    return (of("KEY") + of("VALUE")) / 2


def _users(op: Any) -> Iterator[str]:
    for output in op.outputs():
        for target in output.get_target_inputs():
            node = target.get_node()
            if node.get_type_name() in LAYOUT:
                yield from _users(node)
            else:
                yield str(node.get_type_name())


class QuietTorch:
    """One torch thread while OpenVINO works: threads of OpenMP that spin at the end of torch's own work would
    take the cores from oneTBB's."""

    def __init__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def end(self) -> None:
        """As many threads as before."""
        torch.set_num_threads(self._before)


def refuse_static_cache(cache: str) -> None:
    """RunFailure `unsupported` for a static cache, which no IR has."""
    if cache == "static":
        raise RunFailure(
            "unsupported", "OpenVINO keeps the cache inside of the model; leave out --use-static-cache"
        )


def _wanted(subject: Subject, merge_lora: bool) -> tuple[ExportRecipe, Path]:
    from xpubench.runtimes.openvino.export import cached

    recipe = ExportRecipe(
        model=subject.model,
        weight_format=options_of(subject).weight_format or ("fp32" if subject.dtype == "float32" else "fp16"),
        revision=subject.revision,
        lora=subject.lora if merge_lora else None,
        trust_remote_code=subject.trust_remote_code,
        allow_pickle=subject.allow_pickle,
    )
    return recipe, cached(recipe, source_of(recipe))


def _export(recipe: ExportRecipe, directory: Path, say: Callable[[str], None]) -> None:
    say(f"exporting {recipe.model} to OpenVINO, {recipe.weight_format}; the next run finds it in the cache")
    order = msgspec.json.encode(ExportOrder(recipe=recipe, out=str(directory)))
    run_child([sys.executable, "-m", "xpubench.runtimes.openvino.export"], order, say, "the export")


def _check_ir(directory: Path) -> None:
    xml = directory / IR_FILE
    if not xml.with_suffix(".bin").is_file():
        raise RunFailure(
            "bad_model", f"{xml} has no {xml.with_suffix('.bin').name} beside it; export it again"
        )
    try:
        model = import_openvino().Core().read_model(xml)
    except RuntimeError as error:
        raise RunFailure(
            "bad_model", f"{xml} is no whole IR: {str(error).strip().splitlines()[-1]}"
        ) from error
    inputs = {one.get_any_name() for one in model.inputs}
    outputs = {one.get_any_name() for one in model.outputs}
    if not inputs >= NEEDED_INPUTS or "logits" not in outputs:
        raise RunFailure(
            "unsupported",
            f"{xml} is no stateful language model: it takes {', '.join(sorted(inputs))} and gives "
            f"{', '.join(sorted(outputs))}; xpubench export makes one",
        )


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple | set):
        return [_plain(one) for one in value]
    if hasattr(value, "get_type_name"):
        return value.get_type_name()
    return getattr(value, "name", str(value))
