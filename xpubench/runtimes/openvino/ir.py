"""An IR on a device: its requested and applied properties, and the bytes of its weights and its cache."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from xpubench.errors import UserError
from xpubench.runtimes.openvino.options import OpenVinoOptions, shares
from xpubench.runtimes.openvino.stack import import_openvino
from xpubench.spec import DTYPE_BYTES, Subject

# What a record calls the cache of these runtimes.
CACHE = "state of the IR"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
# The quantized types of constants by OpenVINO's names. The first of these types that an IR holds counts as
# that of its weights.
STORED = {
    "i4": "int4",
    "u4": "int4",
    "nf4": "int4",
    "f4e2m1": "int4",
    "i8": "int8",
    "u8": "int8",
    "f8e4m3": "fp8",
}
FLOATS = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}
# Smaller constants are not weights.
LEAST_BYTES = 1024
TYPES = ("INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION")
# The place of the properties that an IR asks for itself.
RUNTIME_OPTIONS = ["runtime_options"]
# These properties are read back from the compiled model, where its device has them.
READ_BACK = (
    *("EXECUTION_DEVICES", *TYPES, "PERFORMANCE_HINT"),
    *("DYNAMIC_QUANTIZATION_GROUP_SIZE", "NUM_STREAMS", "INFERENCE_NUM_THREADS"),
    *("ENABLE_CPU_PINNING", "ENABLE_HYPER_THREADING"),
)
# A quantized cache has a float32 scale and a float32 zero point for each group of values, or for each head
# where the group size is 0.
CACHE_SCALE_BYTES = 8
# Operations that decompress or rearrange a weight between its constant and the operation that uses it.
LAYOUT = {"Convert", "Subtract", "Multiply", "Reshape", "Transpose"}


def options_of(subject: Subject) -> OpenVinoOptions:
    assert isinstance(subject.options, OpenVinoOptions)
    return subject.options


def plugin_of(subject: Subject) -> str:
    """The device name to ask a core for properties: AUTO for AUTO:GPU,CPU."""
    device = options_of(subject).device
    return shares(device) or device


def supported(owner: Any, *device: str) -> list[str]:
    """The names of the properties of a compiled model, or of a core's device."""
    return [str(name) for name in owner.get_property(*device, "SUPPORTED_PROPERTIES")]


def core_of(subject: Subject, without: tuple[str, ...] = ()) -> Any:
    """A core whose device has the subject's properties, except those in `without`. UserError for a value that
    the device does not take. A device that distributes work to others, such as AUTO, takes properties only
    together with a model."""
    device, core = options_of(subject).device, import_openvino().Core()
    if shares(device):
        return core
    asked = {name: value for name, value in properties(subject).items() if name not in without}
    try:
        core.set_property(device, asked)
        core.get_property(device, "FULL_DEVICE_NAME")  # the device checks the properties when it is used
    except RuntimeError as error:
        raise UserError(f"OpenVINO's {device}: {last_line(error)}") from error
    return core


def properties(subject: Subject) -> dict[str, Any]:
    """The properties to set on the device's plugin. `config`, by OpenVINO's own names, takes precedence."""
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
    """The properties that the compiled model reports, as plain JSON values."""
    known = supported(compiled)
    names = dict.fromkeys([*READ_BACK, *asked])
    return {name: _plain(compiled.get_property(name)) for name in names if name in known}


def stand_in(core: Any, device: str, asked: dict[str, Any], model: Any) -> Any:
    """A compiled model of one operator with the precisions that are asked for and the runtime options of the
    IR `model`, such as the type of the cache that Optimum writes there. Its properties are those that the
    device gives the IR too. None where the device does not compile it."""
    from openvino import Model, opset13

    given = opset13.parameter([1, 1], dtype=np.float32)
    small = Model([opset13.relu(given)], [given])
    if model.has_rt_info(RUNTIME_OPTIONS):
        small.set_rt_info(model.get_rt_info(RUNTIME_OPTIONS), RUNTIME_OPTIONS)
    try:
        return core.compile_model(small, device, {name: asked[name] for name in TYPES if name in asked})
    except RuntimeError:
        return None


def weight_sizes(model: Any) -> tuple[int, int]:
    """The bytes of an IR's weights, and of those that one decoding step reads: all but the embedding tables,
    from which it only looks rows up."""
    total = read = 0
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Constant" and op.get_byte_size() > LEAST_BYTES:
            total += op.get_byte_size()
            if set(_users(op)) != {"Gather"}:
                read += op.get_byte_size()
    return total, read


@cache
def stored_precision(xml: Path) -> str | None:
    """The type of an IR's weights: the narrowest type of quantized weights where there are any, else the
    floating point type with the most bytes; None where the file has neither."""
    sizes: Counter[str] = Counter()
    for _, layer in ElementTree.iterparse(xml):
        data = layer.find("data") if layer.tag == "layer" and layer.get("type") == "Const" else None
        if data is not None and int(data.get("size", 0)) > LEAST_BYTES:
            sizes[data.get("element_type", "")] += int(data.get("size", 0))
        if layer.tag == "layer":
            layer.clear()
    quantized = next((STORED[name] for name in STORED if name in sizes), None)
    floats = [name for name, _ in sizes.most_common() if name in FLOATS]
    return quantized or (FLOATS[floats[0]] if floats else None)


def kv_value_bytes(subject: Subject, owner: Any, head_dim: int, *device: str) -> float:
    """Bytes of one value of the KV cache, scales included, by the properties of a compiled model, or of a
    core's device."""
    known = supported(owner, *device)

    def bytes_of(side: str) -> float:
        names = (f"{side}_CACHE_PRECISION", "KV_CACHE_PRECISION", "INFERENCE_PRECISION_HINT")
        precisions = (owner.get_property(*device, name) for name in names if name in known)
        # The type of a cache that stays in the inference precision has no bit width, and AUTO reports no type
        # at all.
        value = next((one.bitwidth / 8 for one in precisions if one.bitwidth), DTYPE_BYTES[subject.dtype])
        if value >= 2:
            return value
        size = f"{side}_CACHE_GROUP_SIZE"
        group = int(owner.get_property(*device, size)) if size in known else 0
        return value + CACHE_SCALE_BYTES / (group or head_dim)

    return (bytes_of("KEY") + bytes_of("VALUE")) / 2


def last_line(error: Exception) -> str:
    """The last line of OpenVINO's message, which holds the reason; those before it are source locations."""
    return [type(error).__name__, *str(error).strip().splitlines()][-1]


def _users(op: Any) -> Iterator[str]:
    for output in op.outputs():
        for target in output.get_target_inputs():
            node = target.get_node()
            if node.get_type_name() in LAYOUT:
                yield from _users(node)
            else:
                yield str(node.get_type_name())


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
