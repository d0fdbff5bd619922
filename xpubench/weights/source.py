"""From a model's name to a directory with its checkpoint, which is checked before anything is loaded."""

import errno
import json
import re
from pathlib import Path
from typing import Any, Protocol

import msgspec
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from xpubench.catalog import SMOLLM2, find_model, local_directory, models
from xpubench.errors import RunFailure, UserError, first_line, unknown
from xpubench.weights.embedded import smollm2_directory

CONFIG_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
SAFETENSORS = "*.safetensors"
PICKLES = "*.bin"
# The files from which transformers loads, or whose indices (NAME.index.json) name them.
SAFETENSORS_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"
CODE = "*.py"
# The fields of the configs of several architectures that are sizes.
SIZES = (
    *("hidden_size", "n_embd", "n_embed", "d_model", "intermediate_size", "n_inner", "ffn_dim", "head_dim"),
    *("num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "num_key_value_heads"),
    *("vocab_size", "max_position_embeddings", "n_positions"),
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint on this machine: its directory, the fields of its config, and the hash of its commit
    where it comes from the hub."""

    name: str
    directory: Path
    config: dict[str, Any]
    revision: str | None = None


class Wanted(Protocol):
    """What names a checkpoint and says how it may be read: a subject, or the recipe of an export.
    `weights_from` is the embedded model, a local directory, or a name of the hub, `revision` the hub's
    branch, tag or commit. `allow_pickle` permits pickled weights, `trust_remote_code` code that comes with
    the model."""

    @property
    def weights_from(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def allow_pickle(self) -> bool: ...

    @property
    def trust_remote_code(self) -> bool: ...


def source_of(wanted: Wanted) -> Source:
    """The wanted checkpoint, downloaded where it is not local. Raises UserError for what the user must
    change, RunFailure `bad_model` for a broken checkpoint and `unsupported` for an unknown architecture."""
    directory = _directory(wanted)
    config = _read_json(directory / "config.json")
    _check_architecture(config, wanted.trust_remote_code)
    _check_weights(directory, wanted.allow_pickle)
    name = wanted.weights_from
    return Source(name=name, directory=directory, config=config, revision=_commit(directory))


def read_config(name: str, *, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """The fields of a model's config from the catalog, a directory or the hub, without its weights."""
    local = local_directory(name)
    if local is None and (known := find_model(name)) is not None:
        return known.config()
    directory = local or _download(name, revision, ["config.json"])
    config = _read_json(directory / "config.json")
    _check_architecture(config, trust_remote_code)
    return config


def _directory(wanted: Wanted) -> Path:
    name = wanted.weights_from
    if name.lower() == SMOLLM2:
        return smollm2_directory()
    if (local := local_directory(name)) is not None:
        return local
    patterns = [*CONFIG_FILES, SAFETENSORS, *([CODE] if wanted.trust_remote_code else [])]
    directory = _download(name, wanted.revision, patterns)
    if wanted.allow_pickle and not any(directory.glob(SAFETENSORS)):
        directory = _download(name, wanted.revision, [*patterns, PICKLES])
    return directory


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    hub_id = known.id if (known := find_model(name)) else name
    if not HUB_ID.fullmatch(hub_id):
        raise unknown("model", name, [one.id for one in models()])
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        hint = "accept its terms on the hub and log in with `hf auth login`"
        raise UserError(f"{hub_id} is gated: {hint}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{hub_id} has no revision {revision!r} on the hub") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        hint = "check the name, or log in with `hf auth login`"
        raise UserError(f"no model {hub_id} on the hub, or not for you; {hint}") from error
    # Versions of the hub's library use requests, httpx or httpx2, whose errors have no common base class.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise UserError(f"cannot download {hub_id}: {error}; set HF_HOME to another directory") from error
        raise UserError(
            f"{hub_id} is not on this machine and the hub is out of reach; give a local directory, or "
            "--dummy-weights to measure without weights a model that `xpubench models` lists"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise RunFailure("bad_model", f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunFailure("bad_model", f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RunFailure("bad_model", f"{path} holds no JSON object")
    return fields


def _check_architecture(config: dict[str, Any], trust_remote_code: bool) -> None:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise RunFailure("bad_model", "config.json names no architecture (model_type)")
    for name in SIZES:
        value = config.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise RunFailure("bad_model", f"config.json says {name} = {value!r}, which is no size")
    native = model_type in CONFIG_MAPPING_NAMES
    # The class's name as in transformers, such as GPTNeoXForCausalLM, spares a run of an exported model two
    # seconds of imports.
    class_name = model_type.replace("_", "") + "forcausallm"
    named = config.get("architectures")
    if native and isinstance(named, list) and class_name in [str(one).lower() for one in named]:
        return
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        if trust_remote_code:
            return
        reason = "comes as code with the model; --trust-remote-code runs it"
    elif native:
        reason = "is not a causal language model"
    else:
        reason = "is not known to the installed transformers"
    raise RunFailure("unsupported", f"the architecture {model_type!r} {reason}")


def _check_weights(directory: Path, allow_pickle: bool) -> None:
    if files := weight_files(directory):
        for file in files:
            _check_safetensors(file)
    elif allow_pickle and not pickle_files(directory):
        raise RunFailure("bad_model", f"{directory} holds no weights ({SAFETENSORS_FILE}, {PICKLE_FILE})")
    elif allow_pickle:
        return
    elif any(directory.glob(f"{PICKLE_FILE}*")):
        hint = "--allow-pickle loads them if you trust their maker"
        raise UserError(f"{directory} holds only .bin weights, which can run code when loaded; {hint}")
    elif _commit(directory) is not None:
        # .bin files are not downloaded without the flag, and a single one has no index that would name it.
        what = f"{directory} holds no safetensors weights, as the hub has none of this model"
        hint = "--allow-pickle downloads .bin weights, which can run code, if you trust their maker"
        raise UserError(f"{what}; {hint}")
    else:
        raise RunFailure("bad_model", f"{directory} holds no safetensors weights ({SAFETENSORS_FILE})")


def _commit(directory: Path) -> str | None:
    """The commit of a directory in the hub's cache, which names directories by commits; None for other
    directories."""
    in_hub_cache = directory.parent.name == "snapshots" and COMMIT.fullmatch(directory.name)
    return directory.name if in_hub_cache else None


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that make up the checkpoint, empty when it has none. RunFailure `bad_model` where
    its index is invalid or a file is missing."""
    return _shards(directory, SAFETENSORS_FILE)


def pickle_files(directory: Path) -> list[Path]:
    """The .bin files that make up the checkpoint, as `weight_files`."""
    return _shards(directory, PICKLE_FILE)


def _shards(directory: Path, name: str) -> list[Path]:
    """The file of that name or, where there is none, those that its index names, as transformers chooses:
    an index of earlier shards can lie beside it."""
    single, index = directory / name, directory / f"{name}.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        return []
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise RunFailure("bad_model", f"{index} does not say which file holds which weight (weight_map)")
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (directory / shard).exists()]
    if missing or not shards:
        raise RunFailure("bad_model", f"{directory} lacks {', '.join(missing) or 'all shards of its index'}")
    return [directory / shard for shard in shards]


def _check_safetensors(path: Path) -> None:
    """RunFailure `bad_model` where the file's header is broken or does not fit the file's size. Opening a
    file reads its header and none of the weights."""
    try:
        # safetensors says that a file is not there where it may not be read.
        path.open("rb").close()
        with safe_open(path, framework="numpy"):
            pass
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise RunFailure("bad_model", f"{path} cannot be read: {reason}") from error
    except SafetensorError as error:
        what = f"is not a whole safetensors file ({path.stat().st_size:,} bytes)"
        raise RunFailure("bad_model", f"{path} {what}: {first_line(error)}") from error
