"""From a model's name to a directory that holds a whole checkpoint, checked before anything is loaded."""

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

from xpubench.catalog import SMOLLM2, find_model, models
from xpubench.errors import RunFailure, UserError, first_line, unknown
from xpubench.weights.embedded import smollm2_directory

CONFIG_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
SAFETENSORS = "*.safetensors"
PICKLES = "*.bin"
# The files from which transformers loads; others of these kinds may lie beside them.
SAFETENSORS_FILE = "model.safetensors"
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
CODE = "*.py"
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
    """What names a checkpoint and says how it may be read: a subject, or the recipe of an export."""

    @property
    def weights_from(self) -> str:
        """The embedded model, a local directory, or a name of the hub."""

    @property
    def revision(self) -> str | None:
        """The hub's branch, tag or commit."""

    @property
    def allow_pickle(self) -> bool:
        """Whether pickled weights may be loaded."""

    @property
    def trust_remote_code(self) -> bool:
        """Whether code that comes with the model may run."""


def source_of(wanted: Wanted) -> Source:
    """The checkpoint of what is wanted: the embedded model, a local directory, or one of the hub.

    Raises UserError for what the user must change, RunFailure `bad_model` for a broken checkpoint and
    `unsupported` for an architecture that cannot be loaded.
    """
    name = wanted.weights_from
    directory = _directory(name, wanted.revision, wanted.allow_pickle, wanted.trust_remote_code)
    config = _read_json(directory / "config.json")
    _check_architecture(config, wanted.trust_remote_code)
    _check_weights(directory, wanted.allow_pickle)
    return Source(name=name, directory=directory, config=config, revision=_commit(directory))


def read_config(name: str, *, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """The fields of a model's config, without its weights: the catalog's, a directory's, or the hub's."""
    local = _local_directory(name)
    if local is None and (known := find_model(name)) is not None:
        return known.config()
    directory = local or _download(name, revision, ("config.json",))
    config = _read_json(directory / "config.json")
    _check_architecture(config, trust_remote_code)
    return config


def _directory(name: str, revision: str | None, allow_pickle: bool, trust_remote_code: bool) -> Path:
    if name.lower() == SMOLLM2:
        return smollm2_directory()
    local = _local_directory(name)
    if local is not None:
        return local
    wanted = [*CONFIG_FILES, SAFETENSORS, *([CODE] if trust_remote_code else [])]
    directory = _download(name, revision, wanted)
    if allow_pickle and not any(directory.glob(SAFETENSORS)):
        directory = _download(name, revision, [*wanted, PICKLES])
    return directory


def _commit(directory: Path) -> str | None:
    """The commit that the hub's cache names its directories by."""
    in_hub_cache = directory.parent.name == "snapshots" and COMMIT.fullmatch(directory.name)
    return directory.name if in_hub_cache else None


def _local_directory(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # ~someone who has no home
        path = Path(name)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists():
        raise UserError(f"no such directory: {name}; a local model is a directory with config.json")
    return None


def _download(name: str, revision: str | None, patterns: list[str] | tuple[str, ...]) -> Path:
    known = find_model(name)
    hub_id = known.id if known is not None else name
    if not HUB_ID.fullmatch(hub_id):
        raise unknown("model", name, [one.id for one in models()])
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise UserError(
            f"{hub_id} is gated: accept its terms on the hub and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{hub_id} has no revision {revision!r} on the hub") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"no model {hub_id} on the hub, or not for you; check the name, or log in with `hf auth login`"
        ) from error
    # By version the hub's library speaks through requests, httpx or httpx2, whose errors share no base.
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
    if model_type in CONFIG_MAPPING_NAMES and _is_named_causal(model_type, config):
        return
    # Two seconds of imports, which a run of an exported model would need for nothing else.
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        if trust_remote_code:
            return
        raise RunFailure(
            "unsupported",
            f"the architecture {model_type!r} comes as code with the model; --trust-remote-code runs it",
        )
    if model_type in CONFIG_MAPPING_NAMES:
        raise RunFailure("unsupported", f"the architecture {model_type!r} is no causal language model")
    raise RunFailure(
        "unsupported", f"the architecture {model_type!r} is not known to the installed transformers"
    )


def _is_named_causal(model_type: str, config: dict[str, Any]) -> bool:
    """Whether the config names the model's class as transformers does, such as GPTNeoXForCausalLM."""
    architectures = config.get("architectures")
    name = model_type.replace("_", "") + "forcausallm"
    return isinstance(architectures, list) and name in [str(one).lower() for one in architectures]


def _check_weights(directory: Path, allow_pickle: bool) -> None:
    files = weight_files(directory)
    for file in files:
        _check_safetensors(file)
    if files:
        return
    if not any((directory / name).exists() for name in PICKLE_FILES):
        raise RunFailure("bad_model", f"{directory} holds no safetensors weights ({SAFETENSORS_FILE})")
    if not allow_pickle:
        raise UserError(
            f"{directory} holds only .bin weights, which can run code when loaded; "
            "--allow-pickle loads them if you trust their maker"
        )


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that make up the checkpoint, empty when it has none.

    RunFailure `bad_model` where its index makes no sense or a file is missing.
    """
    index = directory / f"{SAFETENSORS_FILE}.index.json"
    if not index.exists():
        single = directory / SAFETENSORS_FILE
        return [single] if single.exists() else []
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise RunFailure("bad_model", f"{index} does not say which file holds which weight (weight_map)")
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (directory / shard).exists()]
    if missing or not shards:
        raise RunFailure("bad_model", f"{directory} lacks {', '.join(missing) or 'all shards of its index'}")
    return [directory / shard for shard in shards]


def pickle_files(directory: Path) -> list[Path]:
    """The .bin files that make up the checkpoint, empty when it has none."""
    single, index = (directory / name for name in PICKLE_FILES)
    if index.exists():
        return [directory / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
    return [single] if single.exists() else []


def _check_safetensors(path: Path) -> None:
    """RunFailure `bad_model` where the file's header is broken, or needs more or fewer bytes than there are.

    Opening a file reads its header and none of the weights.
    """
    try:
        with safe_open(path, framework="numpy"):
            pass
    except OSError as error:
        raise RunFailure("bad_model", f"{path} cannot be read: {first_line(error)}") from error
    except SafetensorError as error:
        size = path.stat().st_size
        raise RunFailure(
            "bad_model", f"{path} is not a whole safetensors file ({size:,} bytes): {first_line(error)}"
        ) from error
