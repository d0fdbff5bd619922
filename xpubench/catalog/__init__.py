"""The known models and devices, which are data files beside this module, and their lookup by name."""

import json
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.errors import UserError, unknown
from xpubench.files import expanded

SMOLLM2 = "smollm2-135m"
# The known families whose architecture exists only as code on the hub, not in transformers.
REMOTE_CODE_ONLY = frozenset({"baichuan"})
# The default of a model's limit: an accuracy below the reference by more percentage points is a regression.
ACCURACY_LIMIT_POINTS = 3.0
# The digests of files with whole test sets. A run on one of them compares with a model's reference accuracy.
TEST_SETS = {
    "lambada_openai": "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
    "lambada_standard": "e3d98f56b609fecade1e937dcf08cf2a76100c2862d54eb04126afec7fe5e1e2",
}

Status = Literal["validated", "family", "embedded", "unknown"]


class PublishedAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """An accuracy on `n` items that was published in `source`."""

    acc: float
    n: int
    source: str


class CatalogModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model: what the guide for Intel GPUs validated it for, the name of the file with its architecture,
    and its reference accuracies by task. A drop by more than `accuracy_limit_points` percentage points is a
    regression. `ranks` is the number of ranks in the guide's own sharded runs, where these are published.
    `pickled` says where it is known from that the hub has its weights as .bin files alone, `remote_code` that
    the hub's form of it is code; None where neither holds."""

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
    pickled: str | None = None
    remote_code: str | None = None
    accuracy: dict[str, PublishedAccuracy] = {}
    accuracy_limit_points: float = ACCURACY_LIMIT_POINTS

    @property
    def needed_flags(self) -> list[str]:
        """The flags without which the hub's files of the model do not load."""
        marks = {"--allow-pickle": self.pickled, "--trust-remote-code": self.remote_code}
        return [flag for flag, source in marks.items() if source is not None]

    def config(self) -> dict[str, Any]:
        """The fields of the model's transformers config."""
        path = files(__name__) / "architectures" / f"{self.architecture}.json"
        return dict(json.loads(path.read_text()))

    def native_config(self) -> dict[str, Any]:
        """The fields of the model's transformers config; UserError for an architecture that transformers
        itself cannot build."""
        config = self.config()
        if config["model_type"] in REMOTE_CODE_ONLY:
            why = "exists only as code on the hub, so there are no dummy weights"
            raise UserError(f"{self.id} {why}; load the model with --trust-remote-code")
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


@cache
def models() -> tuple[CatalogModel, ...]:
    """All models, in the catalog's order."""
    return msgspec.convert(table("models"), tuple[CatalogModel, ...])


def needing_flags() -> dict[str, list[str]]:
    """By each flag without which some model of the hub does not load, the ids of those models."""
    needing: dict[str, list[str]] = {}
    for one in models():
        for flag in one.needed_flags:
            needing.setdefault(flag, []).append(one.id)
    return needing


def find_model(name: str) -> CatalogModel | None:
    """The model of that id, None when the catalog has none. The case of letters does not matter, and the
    organisation before the slash may be left out."""
    wanted = name.lower()
    found = (one for one in models() if wanted in (one.id.lower(), one.id.lower().rpartition("/")[2]))
    return next(found, None)


def model(name: str) -> CatalogModel:
    """The model of that id; UserError with the nearest ones when there is none."""
    if (found := find_model(name)) is None:
        raise unknown("model", name, [one.id for one in models()])
    return found


def status_of(name: str, model_type: str | None) -> Status:
    """Whether the model itself is validated, only others of its architecture's family, or neither."""
    if (found := find_model(name)) is not None:
        return found.status
    # GLM-4's own code on the hub calls its architecture chatglm.
    known = {"chatglm"} | {one.config()["model_type"] for one in models() if one.status == "validated"}
    return "family" if model_type in known else "unknown"


@cache
def devices() -> tuple[CatalogDevice, ...]:
    """All devices, in the catalog's order."""
    return msgspec.convert(table("devices"), tuple[CatalogDevice, ...])


def device(name: str) -> CatalogDevice:
    """The device of that id; UserError with the nearest ones when there is none."""
    if (found := next((one for one in devices() if one.id == name.lower()), None)) is None:
        raise unknown("device", name, [one.id for one in devices()])
    return found


def identify_device(reported_name: str, memory_bytes: int | None) -> CatalogDevice | None:
    """The device that a driver reports by that name and memory, None when the catalog has none. A Max
    1550's card and one of its two tiles have the same name, so that only their memory tells them apart."""
    reported = reported_name.lower()
    named = [one for one in devices() if any(part.lower() in reported for part in one.reported)]
    if memory_bytes is None:
        return named[0] if len(named) == 1 else None
    return min(named, key=lambda one: abs(one.memory_bytes - memory_bytes), default=None)


def config_of(name: str) -> dict[str, Any]:
    """The transformers config of a model of the catalog or of a directory; UserError where there is none."""
    if (directory := local_directory(name)) is None:
        return model(name).config()
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{directory} has no readable config.json: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{directory}/config.json holds no JSON object")
    return config


def local_directory(name: str) -> Path | None:
    """The directory of that path, None for a name of the catalog or the hub. UserError for the path of
    something else."""
    path = expanded(name)
    try:
        if name and path.is_dir():
            return path
    except OSError as error:  # a name that is too long, or a directory that may not be entered
        raise UserError(f"cannot look for the model {name[:60]!r}: {error.strerror}") from error
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.is_file():
        raise UserError(f"no such directory: {name}; a local model is a directory with config.json")
    return None


def table(name: str) -> list[dict[str, Any]]:
    """The rows of the data file of that name, each with its key as `id`."""
    table = tomllib.loads((files(__name__) / f"{name}.toml").read_text())
    return [{"id": name} | row for name, row in table.items()]


def accuracy_limit_points(model: str) -> float:
    """The drop of a model's accuracy, in percentage points, beyond which it is a regression."""
    known = find_model(model)
    return known.accuracy_limit_points if known else ACCURACY_LIMIT_POINTS
