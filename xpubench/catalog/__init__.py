"""The validated models and the devices, as data files beside this module, and their lookup by name."""

import json
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.errors import UserError, unknown

SMOLLM2 = "smollm2-135m"
# Of the known families, those whose architecture transformers holds only as code from the hub.
REMOTE_CODE_ONLY = frozenset({"baichuan"})
# A lower accuracy than the reference by more than so many percentage points is a regression, where the
# catalog has no other limit for the model.
ACCURACY_LIMIT_POINTS = 3.0
# Files of the whole test sets, by their content: on these, a local run is what a model's reference
# accuracy is of.
TEST_SETS = {
    "lambada_openai": "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
    "lambada_standard": "e3d98f56b609fecade1e937dcf08cf2a76100c2862d54eb04126afec7fe5e1e2",
}

Status = Literal["validated", "family", "embedded", "unknown"]


class PublishedAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """An accuracy that somebody published: of `n` items, in `source`."""

    acc: float
    n: int
    source: str


class CatalogModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model: what the guide for Intel GPUs validated it for, where its architecture lies, and its reference
    accuracies by task. A drop of more than `accuracy_limit_points`
    percentage points is a regression. `ranks` is how many shared it in the guide's own sharded runs, where
    these are published."""

    id: str
    family: str
    status: Status
    architecture: str
    fp16: bool = False
    int4: bool = False
    platforms: list[str] = []
    listed: list[str] = []
    ranks: int | None = None
    note: str | None = None
    accuracy: dict[str, PublishedAccuracy] = {}
    accuracy_limit_points: float = ACCURACY_LIMIT_POINTS

    def config(self) -> dict[str, Any]:
        """The fields of the model's transformers config."""
        path = files(__name__) / "architectures" / f"{self.architecture}.json"
        fields: dict[str, Any] = json.loads(path.read_text())
        return fields

    def native_config(self) -> dict[str, Any]:
        """The same, of an architecture that transformers can build itself; UserError for the others."""
        config = self.config()
        if config["model_type"] in REMOTE_CODE_ONLY:
            raise UserError(
                f"{self.id} exists only as code on the hub, so there are no dummy weights; load the model "
                "with --trust-remote-code"
            )
        return config


class CatalogDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device by its data sheet: bytes, GB/s (10^9), and dense 16-bit TFLOP/s, each with its source."""

    id: str
    name: str
    reported: list[str]
    memory_bytes: int
    bandwidth_gb_per_s: float
    bandwidth_source: str
    peak_tflop_per_s: float | None = None
    peak_source: str | None = None


def models() -> list[CatalogModel]:
    """All models, in the catalog's order."""
    return list(_models().values())


def find_model(name: str) -> CatalogModel | None:
    """The model of that id, in any case, with or without the organisation before the slash."""
    wanted = name.lower()
    for model_id, found in _models().items():
        if wanted in (model_id.lower(), model_id.lower().rpartition("/")[2]):
            return found
    return None


def model(name: str) -> CatalogModel:
    """The model of that id; UserError with the nearest ones when there is none."""
    found = find_model(name)
    if found is None:
        raise unknown("model", name, list(_models()))
    return found


def status_of(name: str, model_type: str | None) -> Status:
    """How far a model is validated: itself, only others of its architecture's family, or not at all."""
    found = find_model(name)
    if found is not None:
        return found.status
    # chatglm is what GLM-4's own code on the hub calls the architecture.
    known = {"chatglm"} | {one.config()["model_type"] for one in models() if one.status == "validated"}
    return "family" if model_type in known else "unknown"


def devices() -> list[CatalogDevice]:
    """All devices, in the catalog's order."""
    return list(_devices().values())


def device(name: str) -> CatalogDevice:
    """The device of that id; UserError with the nearest ones when there is none."""
    found = _devices().get(name.lower())
    if found is None:
        raise unknown("device", name, list(_devices()))
    return found


def identify_device(reported_name: str, memory_bytes: int | None) -> CatalogDevice | None:
    """The device that a driver reports by that name and memory, None when the catalog has none.

    A Max 1550 shows as its card or as its tiles, under one name; the nearer memory tells which, and without
    it nothing does.
    """
    reported = reported_name.lower()
    named = [one for one in devices() if any(part.lower() in reported for part in one.reported)]
    if memory_bytes is None:
        return named[0] if len(named) == 1 else None
    return min(named, key=lambda one: abs(one.memory_bytes - memory_bytes), default=None)


def config_of(name: str) -> dict[str, Any]:
    """The transformers config of a catalog's model or of a directory, without a hub. UserError without."""
    directory = Path(name).expanduser()
    if not directory.is_dir() or not name:
        if directory.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise UserError(f"no such directory: {name}")
        return model(name).config()
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{directory} has no readable config.json: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{directory}/config.json holds no JSON object")
    return config


@cache
def _models() -> dict[str, CatalogModel]:
    return {name: msgspec.convert({"id": name} | row, CatalogModel) for name, row in _table("models").items()}


@cache
def _devices() -> dict[str, CatalogDevice]:
    return {
        name: msgspec.convert({"id": name} | row, CatalogDevice) for name, row in _table("devices").items()
    }


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__name__) / f"{name}.toml").read_text())
