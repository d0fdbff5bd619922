"""RTN INT4 through neural-compressor, as IPEX runs it: quantize, save, load."""

from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins

from xpubench.errors import RunFailure, UserError
from xpubench.files import model_aside
from xpubench.runtimes.ipex.options import INSTALL, ipex_options
from xpubench.runtimes.ipex.state import choose_engine
from xpubench.runtimes.options import AppliedQuantization
from xpubench.spec import Quantization, Subject
from xpubench.weights.load import LoadedWeights
from xpubench.weights.pretrained import load_tokenizer
from xpubench.weights.quiet import quiet_transformers
from xpubench.weights.source import Source, source_of

# neural-compressor writes the layout of XeTLA; the layers of a run choose their own.
SAVING_ENGINE, RUNNING_ENGINE = "xetla", "recommend"
SHORT_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "int8"}
COMPUTE_DTYPES = {"cpu": ("fp32", "bf16", "int8"), "xpu": ("fp16",)}


def check_recipe(subject: Subject, recipe: Quantization) -> None:
    """UserError when neural-compressor is missing or does not take the recipe on the device."""
    _module()
    if recipe.head != "high":
        raise UserError("neural-compressor leaves token table and head as they are; leave out --woq_head")
    if subject.weights == "dummy":
        raise UserError("neural-compressor quantizes checkpoints; leave out --dummy-weights or --ipex")
    if subject.device == "cpu" and ipex_options(subject).ipex_optimize and subject.dtype != "float32":
        raise UserError(
            "on cpu IPEX optimizes INT4 models in float32 alone; give --dtype float32, "
            "or --disable_optimize_transformers"
        )
    if _compute_dtype(subject, recipe) not in COMPUTE_DTYPES[subject.device]:
        known = " or ".join(COMPUTE_DTYPES[subject.device])
        raise UserError(
            f"neural-compressor computes in {known} on {subject.device}, "
            f"not in {_compute_dtype(subject, recipe)}; change --dtype or --compute_dtype"
        )
    if subject.device == "xpu" and recipe.weight_dtype == "int4_asym":
        raise UserError("neural-compressor has no int4_asym on xpu; give --woq_dtype int4_fullrange")


def load_rtn(subject: Subject, recipe: Quantization) -> LoadedWeights:
    """The subject's model quantized on its device, or loaded from the recipe's checkpoint.

    RunFailure `bad_model` for a checkpoint that does not load.
    """
    choose_engine(RUNNING_ENGINE)
    source, model = _model(subject, recipe)
    settings = to_builtins(model.quantization_config.to_dict())
    tokenizer = load_tokenizer(source.directory, subject.trust_remote_code)
    return LoadedWeights(
        model=model.eval(),
        tokenizer=tokenizer,
        revision=source.revision,
        quantization=_applied(settings, subject.device),
    )


def save_rtn(subject: Subject, recipe: Quantization, target: Path) -> None:
    """Quantizes the subject's model and writes it to `target`, whole or not at all. UserError for a recipe
    that neural-compressor does not take."""
    check_recipe(subject, recipe)
    choose_engine(SAVING_ENGINE)
    try:
        source, model = _model(subject, recipe)
        with model_aside(target) as aside:
            model.save_pretrained(str(aside))
            tokenizer = load_tokenizer(source.directory, subject.trust_remote_code)
            if tokenizer is not None:
                tokenizer.save_pretrained(str(aside))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        choose_engine(RUNNING_ENGINE)


def _model(subject: Subject, recipe: Quantization) -> tuple[Source, Any]:
    module = _module()
    source = source_of(subject)
    config = module.RtnConfig(
        bits=4,
        group_size=recipe.group_size,
        compute_dtype=_compute_dtype(subject, recipe),
        scale_dtype=SHORT_NAMES[recipe.scale_dtype],
        weight_dtype=recipe.weight_dtype,
        sym=recipe.weight_dtype != "int4_asym",
        use_layer_wise=False,
        **({"modules_to_not_convert": _kept(source, recipe)} if recipe.high_precision else {}),
    )
    try:
        with quiet_transformers():
            model = module.AutoModelForCausalLM.from_pretrained(
                str(source.directory),
                quantization_config=None if recipe.checkpoint else config,
                device_map=subject.device,
                torch_dtype=getattr(torch, subject.dtype),
                trust_remote_code=subject.trust_remote_code,
            )
    # It logs what went wrong with a saved model and leaves with exit(0).
    except SystemExit as error:
        raise RunFailure(
            "bad_model", f"neural-compressor could not load {source.directory}; its log says why"
        ) from error
    return source, model


def _kept(source: Source, recipe: Quantization) -> list[str]:
    """The names of the modules that the recipe's globs match, and the head's. UserError for a glob that
    matches none."""
    from xpubench.weights.empty import empty_model
    from xpubench.weights.int4.layout import matching

    names = [name for name, _ in empty_model(source.config, torch.float16).named_modules() if name]
    return ["lm_head", *matching(names, recipe.high_precision)]


def _compute_dtype(subject: Subject, recipe: Quantization) -> str:
    return SHORT_NAMES[recipe.compute_dtype or subject.dtype]


def _applied(settings: dict[str, Any], device: str) -> AppliedQuantization:
    """neural-compressor's own settings, and its dtypes by the names that a recipe uses. Its `int4` is the
    grid without the lowest value, and on xpu what it calls `int4_fullrange` is that grid too: its scale is
    the largest weight over 7 (seen with 3.4.1)."""
    long_names = {short: name for name, short in SHORT_NAMES.items()}
    grids = {"int4": "int4_clip" if settings.get("sym") else "int4_asym"}
    if device == "xpu":
        grids["int4_fullrange"] = "int4_clip"

    def named(field: str, names: dict[str, str]) -> str | None:
        value = settings.get(field)
        return None if value is None else names.get(str(value), str(value))

    return AppliedQuantization(
        weight_dtype=named("weight_dtype", grids),
        compute_dtype=named("compute_dtype", long_names),
        scale_dtype=named("scale_dtype", long_names),
        library=settings,
    )


def _module() -> Any:
    try:
        from neural_compressor import transformers
    except Exception as error:  # a misfit ends in whatever its imports raise
        raise UserError(f"neural-compressor does not import ({error}); {INSTALL}") from error
    return transformers
