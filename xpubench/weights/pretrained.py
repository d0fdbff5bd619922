"""A checkpoint's weights and tokenizer, loaded in the asked precision straight to the device."""

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

# transformers 5 renamed the argument and warns about the old name; earlier versions know only that.
DTYPE_ARGUMENT = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"
# What transformers' own models raise on a config or a file that makes no sense. RuntimeError is not among
# them: a device that fails or is full raises that.
NONSENSE = (OSError, ValueError, TypeError, KeyError, UnpicklingError, SafetensorError, StrictDataclassError)
TOKENIZER_PATTERNS = ("tokenizer*", "vocab*", "merges*", "*.model")

# What runs the quantized checkpoints of the hub as they are, as transformers' documentation names it.
QUANTIZERS = {
    "gptq": "pip install gptqmodel optimum",
    "awq": "pip install gptqmodel (autoawq before transformers 5)",
    "compressed-tensors": "pip install compressed-tensors",
    "bitsandbytes": "pip install bitsandbytes",
}

logger = logging.getLogger(__name__)


def load_pretrained(
    source: Source, *, dtype: str, device: str, trust_remote_code: bool, allow_pickle: bool
) -> tuple[Any, Any]:
    """The model in evaluation mode and its tokenizer, None where the checkpoint has none.

    Weights that the model has no place for are warned about and left out. Raises RunFailure `bad_model` when
    weights are missing or of another shape than the config says, or when config or files make no sense.
    """
    # Two seconds of imports, which runtimes that want the tokenizer alone are spared.
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            model, report = AutoModelForCausalLM.from_pretrained(
                source.directory,
                **{DTYPE_ARGUMENT: getattr(torch, dtype)},
                device_map={"": device},
                use_safetensors=None if allow_pickle else True,
                trust_remote_code=trust_remote_code,
                # Only so do all versions report the shapes; they are refused below.
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
        raise RunFailure(
            "bad_model", f"{source.directory} has weights of another shape than its config asks for"
        ) from error
    except NONSENSE as error:
        # Code from the hub fails for reasons of its own, and needs its traceback.
        if trust_remote_code or getattr(error, "errno", None) == errno.ENOMEM:
            raise
        if "quantization_config" in source.config and isinstance(error, ValueError):
            raise cannot_load(source, error) from error
        raise RunFailure("bad_model", f"{source.directory}: {first_line(error)}") from error
    _check_complete(source, report)
    return model.eval(), load_tokenizer(source.directory, trust_remote_code)


def cannot_load(source: Source, error: Exception) -> RunFailure:
    """A quantized checkpoint that the installed libraries or the device cannot run as it is."""
    method = (source.config.get("quantization_config") or {}).get("quant_method")
    if method is None:
        return RunFailure("unsupported", f"{source.name}: {first_line(error)}")
    needed = QUANTIZERS.get(str(method), "what transformers asks for")
    return RunFailure(
        "unsupported",
        f"{source.name} holds {method} weights, which do not load here ({first_line(error)}); "
        f"they need {needed}, on a device that it supports",
    )


def _check_complete(source: Source, report: dict[str, Any]) -> None:
    # A mismatch is a name alone or with the two shapes, by version.
    mismatched = [one if isinstance(one, str) else one[0] for one in report["mismatched_keys"]]
    wrong = sorted({*report["missing_keys"], *mismatched})
    if wrong:
        raise RunFailure(
            "bad_model",
            f"{source.directory} lacks {len(wrong)} of the weights that its config asks for, "
            f"or has them in another shape, first {wrong[0]}",
        )
    if unexpected := sorted(report["unexpected_keys"]):
        logger.warning(
            "%s has %d weights that the model has no place for, first %s",
            source.directory,
            len(unexpected),
            unexpected[0],
        )


def load_tokenizer(directory: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a checkpoint's directory, None where it has none."""
    # Without a file of its own, transformers 5 makes an empty tokenizer for some architectures.
    if not tokenizer_files(directory):
        return None
    try:
        with quiet_transformers():
            return _tokenizer_class(directory).from_pretrained(
                directory, trust_remote_code=trust_remote_code, local_files_only=True
            )
    # tokenizers raises bare exceptions. Latency needs token ids alone; what needs a text says that there is
    # no tokenizer.
    except Exception as error:
        logger.warning("the tokenizer of %s cannot be loaded: %s", directory, first_line(error))
        return None


def _tokenizer_class(directory: Path) -> Any:
    """What loads a tokenizer. AutoTokenizer finds the class of any, at the price of two seconds of imports
    that OpenVINO's runtimes need for nothing else; transformers 5 saves most under one class's name."""
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
