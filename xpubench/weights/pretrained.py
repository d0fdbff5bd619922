"""A checkpoint's weights and tokenizer, loaded in the asked precision straight to the device."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from xpubench.errors import RunFailure
from xpubench.weights.source import Source

# transformers 5 renamed the argument and warns about the old name; earlier versions know only that.
DTYPE_ARGUMENT = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"


def load_pretrained(
    source: Source, *, dtype: str, device: str, trust_remote_code: bool, allow_pickle: bool
) -> tuple[Any, Any]:
    """The model in evaluation mode and its tokenizer, None where the checkpoint has none.

    Raises RunFailure `bad_model` when weights are missing or of another shape than the config says.
    """
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source.directory,
            **{DTYPE_ARGUMENT: getattr(torch, dtype)},
            device_map={"": device},
            use_safetensors=None if allow_pickle else True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            local_files_only=True,
        )
    except (RuntimeError, ValueError, KeyError) as error:
        if _speaks_of_shapes(error):
            raise RunFailure("bad_model", f"{source.directory}: {_first_line(error)}") from error
        raise
    wrong = sorted(str(name) for kind in ("missing_keys", "mismatched_keys") for name in report[kind])
    if wrong:
        raise RunFailure(
            "bad_model",
            f"{source.directory} lacks {len(wrong)} of the weights that its config asks for, "
            f"first {wrong[0]}",
        )
    return model.eval(), _tokenizer(source, trust_remote_code)


def _tokenizer(source: Source, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(
            source.directory, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError):
        # Latency needs token ids alone; what needs a text says that there is no tokenizer.
        return None


def _speaks_of_shapes(error: Exception) -> bool:
    return any(words in str(error) for words in ("size mismatch", "mismatched", "ignore_mismatched_sizes"))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
