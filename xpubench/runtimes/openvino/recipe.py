"""The recipe of an OpenVINO IR, which `xpubench export` keeps beside it."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.catalog.architecture import architecture_of
from xpubench.errors import UserError
from xpubench.files import expanded
from xpubench.runtimes.openvino.options import IR_FILE, WeightFormat
from xpubench.runtimes.options import was_given

Fallback = Literal["error", "ignore", "adjust"]
Backup = Literal["none", "int8_sym", "int8_asym"]
Sensitivity = Literal[
    "weight_quantization_error",
    "hessian_input_activation",
    "mean_activation_variance",
    "max_activation_variance",
    "mean_activation_magnitude",
]

RECIPE_FILE = "xpubench_recipe.json"
# The first is NNCF's default.
GROUPS = (128, 64, 32)
NEED_DATA = ("scale_estimation", "gptq", "lora_correction", "num_samples")
INT4_ALONE = (
    *("ratio", "group_size", "group_size_fallback", "backup_precision", "all_layers", "awq"),
    *("scale_estimation", "gptq", "lora_correction", "sensitivity_metric", "dataset", "num_samples"),
)
# These fields have no flag: Optimum's settings for a known model fill them in.
FROM_OPTIMUM = ("predefined", "dq_group_size", "ignored_scope")


class ExportRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a checkpoint becomes an IR. NNCF chooses the settings that are None. A `group_size` of -1 stands
    for a whole channel; `dataset` is a data set that Optimum knows by name, or a local text file; `lora` is
    the directory of a PEFT adapter. `predefined` is the model whose settings were taken over from Optimum
    Intel; these can include a group size of dynamic quantization (`dq_group_size`) and operations that stay
    uncompressed (`ignored_scope`)."""

    model: str
    weight_format: WeightFormat
    revision: str | None = None
    sym: bool | None = None
    ratio: float | None = None
    group_size: int | None = None
    group_size_fallback: Fallback | None = None
    backup_precision: Backup | None = None
    all_layers: bool = False
    awq: bool = False
    scale_estimation: bool = False
    gptq: bool = False
    lora_correction: bool = False
    sensitivity_metric: Sensitivity | None = None
    dataset: str | None = None
    num_samples: int | None = None
    predefined: str | None = None
    dq_group_size: int | None = None
    ignored_scope: dict[str, Any] | None = None
    lora: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        given = self.compression()
        if given and self.weight_format != "int4":
            raise UserError(
                f"{given[0]} applies only to int4; give --weight-format int4 too, or leave it out"
            )
        if self.sym is not None and self.weight_format in ("fp32", "fp16"):
            raise UserError("--sym and --asym apply only to int8 and int4")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise UserError(f"--ratio must be between 0 and 1, not {self.ratio:g}")
        size = self.group_size
        if size is not None and size != -1 and size < 1:
            raise UserError(f"--group-size must be at least 1, or -1 for whole channels, not {size}")
        if self.num_samples is not None and self.num_samples < 1:
            raise UserError(f"--num-samples must be at least 1, not {self.num_samples}")
        wanting = [name for name in NEED_DATA if getattr(self, name)]
        if wanting and self.dataset is None:
            raise UserError(f"{_flag(wanting[0])} needs data: --dataset FILE.txt")
        if self.gptq and self.lora_correction:
            raise UserError("NNCF applies --gptq or --lora-correction, not both; leave one of the two out")

    @classmethod
    def flags(cls) -> list[str]:
        """The fields that are set by a flag of the same name."""
        return [name for name in cls.__struct_fields__ if name not in FROM_OPTIMUM]

    def compression(self) -> list[str]:
        """The given flags among those that apply only to int4."""
        return [_flag(name) for name in INT4_ALONE if was_given(getattr(self, name))]

    @property
    def weights_from(self) -> str:
        """The name of the checkpoint."""
        return self.model


class ExportOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The order of an export for another process: the recipe, and the directory to write."""

    recipe: ExportRecipe
    out: str


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def fitting_group_size(config: dict[str, Any]) -> int | None:
    """The largest group size that divides the rows of the model's matrices, where NNCF's default of 128 does
    not. None where the default does or the architecture is not known, and -1, a whole channel, where no group
    size divides them."""
    known = architecture_of(config)
    if known is None:
        return None
    rows = (known.hidden_size, known.intermediate_size, known.num_heads * known.head_dim)
    fitting = next((size for size in GROUPS if all(row % size == 0 for row in rows)), -1)
    return None if fitting == GROUPS[0] else fitting


def is_ir(model: str) -> bool:
    """Whether `model` is the path of a directory that holds an OpenVINO IR."""
    return (expanded(model) / IR_FILE).is_file()


def read_recipe(directory: Path) -> dict[str, Any] | None:
    """What an export kept beside its IR: recipe, versions, tokenizer; None where another tool made the IR."""
    try:
        return msgspec.json.decode((directory / RECIPE_FILE).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return None
