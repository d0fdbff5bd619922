"""A subject's weights on its device, from wherever it wants them."""

from pathlib import Path
from typing import Any

import msgspec

from xpubench.runtimes.options import AppliedQuantization
from xpubench.spec import Quantization, Subject
from xpubench.weights.dummy import build_dummy
from xpubench.weights.int4.kernels import tensor_class
from xpubench.weights.int4.load import load_quantized
from xpubench.weights.lora import merged
from xpubench.weights.pretrained import load_pretrained
from xpubench.weights.source import read_config, source_of


class LoadedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A transformers model, its tokenizer (None where it has none), the commit of its weights where they come
    from the hub, and what quantization did to them."""

    model: Any
    tokenizer: Any = None
    revision: str | None = None
    quantization: AppliedQuantization | None = None


def load_weights(subject: Subject) -> LoadedWeights:
    """Raises UserError for what the user must change, RunFailure for a checkpoint that cannot be loaded."""
    trust = subject.trust_remote_code
    if subject.quantization is not None:
        return _quantized(subject, subject.quantization)
    if subject.weights == "dummy":
        config = read_config(subject.model, revision=subject.revision, trust_remote_code=trust)
        return LoadedWeights(model=build_dummy(config, dtype=subject.dtype, device=subject.device, seed=0))
    source = source_of(subject)
    model, tokenizer = load_pretrained(
        source,
        dtype=subject.dtype,
        device=subject.device,
        trust_remote_code=trust,
        allow_pickle=subject.allow_pickle,
    )
    if subject.lora is not None:
        model = merged(model, Path(subject.lora))
    return LoadedWeights(model=model, tokenizer=tokenizer, revision=source.revision)


def _quantized(subject: Subject, recipe: Quantization) -> LoadedWeights:
    model, tokenizer, revision, applied = load_quantized(subject, recipe)
    quantization = AppliedQuantization(
        kernel=tensor_class(subject.device).__name__,
        compute_dtype=subject.dtype,
        scale_dtype=subject.dtype,
        **msgspec.structs.asdict(applied),
    )
    return LoadedWeights(model=model, tokenizer=tokenizer, revision=revision, quantization=quantization)
