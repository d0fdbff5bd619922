"""A subject's model on its device with the weights that the subject names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import torch

from xpubench.runtimes.options import AppliedQuantization
from xpubench.spec import Quantization, Subject
from xpubench.weights.dummy import build_dummy, dummy_tensors
from xpubench.weights.empty import empty_model
from xpubench.weights.int4.checkpoints import read_weights, source_weights
from xpubench.weights.int4.layout import Weight, fill, layout, quantized
from xpubench.weights.lora import merged
from xpubench.weights.pretrained import load_pretrained, load_tokenizer, tokenizer_doubts
from xpubench.weights.source import read_config, source_of

# The fields of a `quantization_config` that tell one recipe from another.
KEPT = ("bits", "group_size", "sym", "desc_act", "zero_point", "version", "data_type", "packing_format")

# auto-round's layers for machines without its kernels.
UNPACKING = "auto_round_extension.torch."
UNPACKING_DOUBT = (
    "auto-round's layers in PyTorch alone unpack their weights at each pass, which makes a step many times "
    "slower: pip install auto-round-lib brings its kernels for CPUs and xpu"
)


class LoadedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A transformers model, its tokenizer (None where it has none), the commit of its weights where they
    come from the hub, how quantization changed the weights, and warnings about the checkpoint."""

    model: Any
    tokenizer: Any = None
    revision: str | None = None
    quantization: AppliedQuantization | None = None
    doubts: tuple[str, ...] = ()


def load_weights(subject: Subject) -> LoadedWeights:
    """Raises UserError for what the user must change, RunFailure for a checkpoint that cannot be loaded."""
    trust = subject.trust_remote_code
    if subject.quantization is not None:
        return _quantized(subject, subject.quantization)
    if subject.weights == "dummy":
        config = read_config(subject.model, revision=subject.revision, trust_remote_code=trust)
        return LoadedWeights(model=build_dummy(config, dtype=subject.dtype, device=subject.device, seed=0))
    source = source_of(subject)
    model, tokenizer, doubts = load_pretrained(
        source,
        dtype=subject.dtype,
        device=subject.device,
        trust_remote_code=trust,
        allow_pickle=subject.allow_pickle,
    )
    if subject.lora is not None:
        model = merged(model, Path(subject.lora))
    applied = _checkpoints_own(source.config.get("quantization_config"), model)
    if applied is not None and (applied.kernel or "").startswith(UNPACKING):
        doubts = (*doubts, UNPACKING_DOUBT)
    return LoadedWeights(
        model=model,
        tokenizer=tokenizer,
        revision=source.revision,
        quantization=applied,
        doubts=doubts,
    )


def check_layout(subject: Subject, recipe: Quantization) -> None:
    """Raises as `layout` where the subject's model, whose weights need not be here yet, cannot be quantized
    by the recipe."""
    if recipe.checkpoint is None:
        trust = subject.trust_remote_code
        config = read_config(subject.model, revision=subject.revision, trust_remote_code=trust)
        layout(empty_model(config, getattr(torch, subject.dtype)), recipe)


def quantized_by(fields: Any) -> AppliedQuantization | None:
    """What a checkpoint's `quantization_config` says about its weights, as written by a library such as
    GPTQ, AWQ or AutoRound; None where there is none. Where it names no number of bits, the method's name
    is the type."""
    if not isinstance(fields, dict):
        return None
    bits = fields.get("bits") or next((bits for bits in (4, 8) if fields.get(f"load_in_{bits}bit")), None)
    # auto-round's name of the type, such as int, fp or mx_fp; that of compressed-tensors is int or float.
    floating = "fp" in str(fields.get("data_type"))
    for group in (fields.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        if bits is None and (bits := weights.get("num_bits")) is not None:
            floating = weights.get("type") == "float"
    kept = {name: value for name, value in fields.items() if name in KEPT and value is not None}
    method = str(fields.get("quant_method", "quantized"))
    weight_dtype = f"{'fp' if floating else 'int'}{bits}" if bits else method
    return AppliedQuantization(weight_dtype=weight_dtype, library={"method": method} | kept)


def _checkpoints_own(fields: Any, model: Any) -> AppliedQuantization | None:
    """As `quantized_by`, with the kernel and the dtype of the loaded model, which some kernels choose."""
    found = quantized_by(fields)
    if found is None:
        return None
    packed = [module for module in model.modules() if hasattr(module, "qweight")]
    kernels = sorted({f"{type(module).__module__}.{type(module).__qualname__}" for module in packed})
    return msgspec.structs.replace(
        found,
        kernel=", ".join(kernels) or None,
        compute_dtype=str(model.dtype).removeprefix("torch."),
        int4=len(packed) if packed and found.weight_dtype == "int4" else None,
        int8=len(packed) if packed and found.weight_dtype == "int8" else None,
    )


def _quantized(subject: Subject, recipe: Quantization) -> LoadedWeights:
    """The model in INT4. The whole float model is never in memory."""
    device, dtype = subject.device, getattr(torch, subject.dtype)
    if subject.weights == "dummy":
        config = read_config(subject.model, revision=subject.revision, trust_remote_code=False)
        model = empty_model(config, dtype)
        tensors = dummy_tensors(model, device=device, seed=0)
        made = quantized(tensors, layout(model, recipe), recipe)
        applied = fill(model, ((name, weight) for name, _, weight in made), device=device, dtype=dtype)
        return LoadedWeights(model=model, quantization=applied)
    source = source_of(subject)
    model = empty_model(source.config, dtype)
    weights: Iterable[tuple[str, Weight]]
    if recipe.checkpoint is not None:
        weights = read_weights(source.directory)
    else:
        weights = ((name, weight) for name, _, weight in source_weights(model, source, recipe))
    applied = fill(model, weights, device=device, dtype=dtype)
    tokenizer = load_tokenizer(source.directory, subject.trust_remote_code)
    return LoadedWeights(
        model=model,
        tokenizer=tokenizer,
        revision=source.revision,
        quantization=applied,
        doubts=tokenizer_doubts(source, tokenizer),
    )
