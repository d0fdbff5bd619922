"""A checkpoint's weights and tokenizer, loaded in the asked precision to the device."""

import errno
import json
import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast

from xpubench.errors import RunFailure, first_line
from xpubench.weights.quiet import quiet_transformers
from xpubench.weights.source import Source

# transformers 5 renamed this argument and warns about the old name, which earlier versions need.
DTYPE_ARGUMENT = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"
# What transformers' own models raise for an invalid config or file. RuntimeError is not among them, as it is
# raised for a device that fails or is full.
INVALID = (OSError, ValueError, TypeError, KeyError, UnpicklingError, SafetensorError, StrictDataclassError)
TOKENIZER_PATTERNS = ("tokenizer*", "vocab*", "merges*", "*.model")

# The packages that run quantized checkpoints of the hub, by transformers' documentation.
QUANTIZERS = {
    "gptq": "pip install gptqmodel optimum",
    "awq": "pip install gptqmodel (autoawq before transformers 5)",
    "auto-round": "pip install 'auto-round>=0.16' auto-round-lib",
    "compressed-tensors": "pip install compressed-tensors",
    "bitsandbytes": "pip install bitsandbytes",
}

logger = logging.getLogger(__name__)


def load_pretrained(
    source: Source, *, dtype: str, device: str, trust_remote_code: bool, allow_pickle: bool
) -> tuple[Any, Any, tuple[str, ...]]:
    """The model in evaluation mode, its tokenizer (None where the checkpoint has none), and warnings, which
    tell of weights that the model has no place for and of values that are NaN or infinite. RunFailure
    `bad_model` when weights are missing or of another shape than the config says, or when config or
    files are invalid."""
    # This import takes two seconds, which runtimes that need only the tokenizer save.
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            model, report = AutoModelForCausalLM.from_pretrained(
                source.directory,
                **{DTYPE_ARGUMENT: getattr(torch, dtype)},
                device_map={"": device},
                use_safetensors=None if allow_pickle else True,
                trust_remote_code=trust_remote_code,
                # All versions then report wrong shapes, which `_check_complete` refuses.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
            )
    except ImportError as error:
        raise cannot_load(source, error) from error
    except NotImplementedError as error:
        # Early versions leave a weight of another shape on the meta device, and then fail to move it.
        if "meta tensor" not in str(error):
            raise
        reason = f"{source.directory} has weights of another shape than its config asks for"
        raise RunFailure("bad_model", reason) from error
    except INVALID as error:
        # The traceback shows where code from the hub failed.
        if trust_remote_code or getattr(error, "errno", None) == errno.ENOMEM:
            raise
        if "quantization_config" in source.config and isinstance(error, ValueError):
            raise cannot_load(source, error) from error
        raise RunFailure("bad_model", f"{source.directory}: {first_line(error)}") from error
    tokenizer = load_tokenizer(source.directory, trust_remote_code)
    doubts = (*_check_complete(source, report), *_not_finite(source, model))
    return model.eval(), tokenizer, (*doubts, *tokenizer_doubts(source, tokenizer))


def cannot_load(source: Source, error: Exception) -> RunFailure:
    """The failure of a quantized checkpoint that the installed libraries or the device cannot run."""
    method = (source.config.get("quantization_config") or {}).get("quant_method")
    if method is None:
        return RunFailure("unsupported", f"{source.name}: {first_line(error)}")
    needed = QUANTIZERS.get(str(method), "what transformers asks for")
    what = f"{source.name} holds {method} weights, which do not load here ({first_line(error)})"
    return RunFailure("unsupported", f"{what}; they need {needed}, on a device that it supports")


def _check_complete(source: Source, report: dict[str, Any]) -> tuple[str, ...]:
    # A mismatch is a name, in some versions with the two shapes.
    mismatched = [one if isinstance(one, str) else one[0] for one in report["mismatched_keys"]]
    wrong = sorted({*report["missing_keys"], *mismatched})
    if wrong:
        what = f"lacks {len(wrong)} of the weights that its config asks for, or has them in another shape"
        raise RunFailure("bad_model", f"{source.directory} {what}, first {wrong[0]}")
    unexpected = sorted(report["unexpected_keys"])
    if not unexpected:
        return ()
    what = f"{len(unexpected)} weights that the model has no place for, first {unexpected[0]}"
    return (f"{source.directory} has {what}",)


def _not_finite(source: Source, model: Any) -> tuple[str, ...]:
    """The warning about weights with NaN or infinite values, which only some prompts may meet."""
    # The ends are NaN where any value is. An export traces a model without values, on the meta device.
    wrong = [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and weight.element_size() > 1 and weight.numel() and not weight.is_meta
        if not all(torch.isfinite(end) for end in torch.aminmax(weight.detach()))
    ]
    if not wrong:
        return ()
    return (f"{source.directory} has NaN or infinite values in {len(wrong)} weights, first {wrong[0]}",)


def tokenizer_doubts(source: Source, tokenizer: Any) -> tuple[str, ...]:
    """The warning about a tokenizer whose files exist but cannot be loaded."""
    if tokenizer is None and tokenizer_files(source.directory):
        return (f"the tokenizer of {source.directory} cannot be loaded; its files may be damaged",)
    return ()


def load_tokenizer(directory: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a checkpoint's directory, None where it has none."""
    # Without files, transformers 5 makes an empty tokenizer for some architectures.
    if not tokenizer_files(directory):
        return None
    try:
        with quiet_transformers():
            return _tokenizer_class(directory).from_pretrained(
                directory, trust_remote_code=trust_remote_code, local_files_only=True
            )
    # tokenizers raises bare exceptions. Latency needs no tokenizer, and whatever does need one checks for it.
    except Exception as error:
        logger.warning("the tokenizer of %s cannot be loaded: %s", directory, first_line(error))
        return None


def ending_of(directory: Path) -> Any:
    """What a checkpoint's generation config says that a text ends at: an id or a list of ids; None where it
    says nothing."""
    try:
        fields = json.loads((directory / "generation_config.json").read_text())
    # transformers takes one that cannot be read for none.
    except (OSError, ValueError):
        return None
    return fields.get("eos_token_id") if isinstance(fields, dict) else None


def _tokenizer_class(directory: Path) -> Any:
    """The class that loads a tokenizer. AutoTokenizer loads any, but its import takes two seconds, which are
    saved where the config names the class under which transformers 5 saves most tokenizers."""
    try:
        name = json.loads((directory / "tokenizer_config.json").read_text())["tokenizer_class"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if name == "TokenizersBackend":
        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def tokenizer_files(directory: Path) -> list[Path]:
    """The files of a checkpoint's directory that make up its tokenizer."""
    return [file for pattern in TOKENIZER_PATTERNS for file in directory.glob(pattern)]
