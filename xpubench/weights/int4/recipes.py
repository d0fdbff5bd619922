"""The recipe in the config of a quantized checkpoint, read without torch."""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

import xpubench
from xpubench.errors import RunFailure, UserError
from xpubench.record import WeightsFingerprint
from xpubench.runtimes.options import NEURAL_COMPRESSOR_METHOD, OWN_INT4_METHOD
from xpubench.runtimes.registry import OPTIONS
from xpubench.spec import WHOLE_ROW, Quantization, check_group_size

# Beside a checkpoint in the format of another library, whose config has no place for the recipe.
CALIBRATED_FILE = "xpubench_recipe.json"


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What the config of an INT4 checkpoint of this tool holds: recipe, source model and its commit."""

    quant_method: str = OWN_INT4_METHOD
    recipe: Quantization
    source: str
    revision: str | None
    xpubench_version: str = xpubench.__version__


class CalibratedRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """INT4 with data: AutoRound learns the rounding of each block in `iters` steps, AWQ searches the scales
    of channels and then rounds to nearest. `nsamples` samples of `seqlen` tokens come from the local file
    `dataset`, and `batch_size` of them count in a step. Scales are float16,
    and a `symmetric` grid has the values -8 to 7 around zero."""

    algorithm: Literal["AutoRound", "AWQ"]
    dataset: str
    iters: int | None = None
    nsamples: int = 128
    seqlen: int = 2048
    batch_size: int = 8
    bits: int = 4
    group_size: int = 64
    symmetric: bool = True

    def __post_init__(self) -> None:
        for name in ("iters", "nsamples", "seqlen"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, not {value}")
        check_group_size(self.group_size)

    @property
    def title(self) -> str:
        """The recipe in a few words."""
        grid = "symmetric" if self.symmetric else "asymmetric"
        steps = "" if self.iters is None else f", {self.iters} steps a block"
        data = f"{self.nsamples} samples of {self.seqlen} tokens from {self.dataset}"
        return f"{self.algorithm} int{self.bits} {grid} groups of {self.group_size}{steps}, {data}"


class CalibratedDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside a checkpoint that was quantized with data: recipe, digest of the data, source model,
    its commit and its fingerprint, and the versions."""

    recipe: CalibratedRecipe
    dataset_sha256: str
    source: str
    checkpoint: WeightsFingerprint
    revision: str | None
    auto_round_version: str
    xpubench_version: str = xpubench.__version__


def calibrated_description(directory: Path) -> CalibratedDescription | None:
    """The description beside a checkpoint that this tool quantized with data; None where there is none."""
    try:
        return msgspec.json.decode((directory / CALIBRATED_FILE).read_bytes(), type=CalibratedDescription)
    except (OSError, msgspec.DecodeError, UserError):
        return None


def quantization_fields(directory: Path) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint's config, empty where there is none or it is unreadable."""
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    fields = config.get("quantization_config") if isinstance(config, dict) else None
    return fields if isinstance(fields, dict) else {}


def read_description(directory: Path) -> Description | None:
    """The description in the config of a directory, None where it is no INT4 checkpoint of this tool.
    RunFailure `bad_model` where it is one with an invalid description."""
    fields = quantization_fields(directory)
    if fields.get("quant_method") != OWN_INT4_METHOD:
        return None
    try:
        found = msgspec.convert(fields, Description)
        check_group_size(found.recipe.group_size)
        return found
    except (msgspec.ValidationError, UserError) as error:
        raise RunFailure("bad_model", f"{directory}/config.json holds no recipe: {error}") from error


def checkpoint_recipe(
    directory: Path, recipe: Quantization, model: str, runs: str, given: set[str]
) -> Quantization:
    """The recipe of the quantized model in a directory, to be run for `model` by a runtime that `runs`
    checkpoints of one quantization method. UserError when there is none, when it is of another model or for
    another runtime, or when it differs from `recipe` in one of the fields `given`."""
    fields = quantization_fields(directory)
    method = fields.get("quant_method")
    if method == NEURAL_COMPRESSOR_METHOD:
        if runs != method:
            raise UserError(f"{directory} was saved by neural-compressor, {_runtimes_for(method)}")
        found = _neural_compressor_recipe(fields, recipe)
    elif description := read_description(directory):
        if runs != OWN_INT4_METHOD:
            raise UserError(f"{directory} was quantized by this tool, {_runtimes_for(OWN_INT4_METHOD)}")
        if Path(description.source).name.lower() != Path(model).name.lower():
            raise UserError(f"{directory} was quantized from {description.source}; run it with -m of that")
        found = description.recipe
    elif method is not None:
        raise UserError(f"{directory} holds {method} weights; run them with -m {directory}, without --woq")
    else:
        raise UserError(f"no quantized model in {directory}; xpubench quantize MODEL {directory} makes one")
    for name in sorted(given - {"compute_dtype"}):
        if getattr(found, name) != getattr(recipe, name):
            both = f"{name} {getattr(found, name)}, not {getattr(recipe, name)}"
            raise UserError(f"{directory} has {both}; leave the flag out to run the model as it was saved")
    compute_dtype = recipe.compute_dtype or found.compute_dtype
    return msgspec.structs.replace(found, checkpoint=str(directory), compute_dtype=compute_dtype)


def _neural_compressor_recipe(fields: dict[str, Any], asked: Quantization) -> Quantization:
    """The recipe that neural-compressor says it applied. It does not say which of two symmetric grids.
    RunFailure `bad_model` where it names no group size."""
    grid = asked.weight_dtype if fields.get("sym", True) else "int4_asym"
    size = fields.get("group_size")
    if type(size) is not int or (size < 1 and size != WHOLE_ROW):
        raise RunFailure("bad_model", f"the checkpoint's config says group_size = {size!r}, which is no size")
    return Quantization(weight_dtype=grid, group_size=size, head="high")


def _runtimes_for(method: str) -> str:
    names = [name for name, options in OPTIONS.items() if options.int4_method == method]
    return f"for --runtime {' or '.join(names)}"
