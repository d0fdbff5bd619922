"""What a runtime declares without importing its stack: its flags, its options in a spec, its description.

A runtime's module of options imports only this one, `xpubench.errors` and the standard library, so that
`--help`, `plan`, `report` and `compare` work where no stack is installed.
"""

import argparse
import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import msgspec

from xpubench.errors import UserError
from xpubench.explanation import Spread

if TYPE_CHECKING:
    from xpubench.spec import Subject, Workload

# The `quant_method` in the config of an INT4 checkpoint that this tool wrote, or neural-compressor.
OWN_INT4_METHOD, NEURAL_COMPRESSOR_METHOD = "xpubench-rtn", "rtn"


class Flag(NamedTuple):
    """A flag of the command line, and its other arguments to `argparse.ArgumentParser.add_argument`."""

    name: str
    settings: dict[str, Any]

    @property
    def dest(self) -> str:
        """The attribute of the parsed arguments that holds its value."""
        return str(self.settings.get("dest", self.name.lstrip("-").replace("-", "_")))


def flag(name: str, **settings: Any) -> Flag:
    """A flag with these arguments to `add_argument`."""
    return Flag(name, settings)


def was_given(value: object) -> bool:
    """Whether a flag with this parsed value, or the field of its name, was given: one that was not is None
    or False. 0 was given, although it equals False."""
    return value is not None and value is not False


class AppliedQuantization(msgspec.Struct, frozen=True, kw_only=True):
    """How the weights of a quantized model were really loaded: the kernel and the precisions that run, the
    numbers of INT4 and INT8 matrices, the names of the parameters in `high` precision, and those among
    them that the kernel `refused`. `library` holds the settings of the library that quantized, under the
    library's names."""

    kernel: str | None = None
    weight_dtype: str | None = None
    compute_dtype: str | None = None
    scale_dtype: str | None = None
    int4: int | None = None
    int8: int | None = None
    high: list[str] = []
    refused: list[str] = []
    library: dict[str, Any] = {}


class RuntimeDescription(msgspec.Struct, frozen=True, kw_only=True, tag_field="name"):
    """What was really loaded. A subclass's tag is the runtime's name. `weight_bytes` counts all weights,
    `step_weight_bytes` those that one decoding step reads."""

    weight_bytes: int = 0
    step_weight_bytes: int = 0
    revision: str | None = None
    quantization: AppliedQuantization | None = None

    @property
    def precision_class(self) -> str | None:
        """The type of quantized weights, such as int4, or the dtype that the stack says it computes in;
        None where it is the subject's."""
        if self.quantization is None:
            return None
        return (self.quantization.weight_dtype or "int4").partition("_")[0]

    @property
    def went_through(self) -> str | None:
        """The coarsest precision class that the weights went through, which says how far the run may be from
        a reference."""
        return self.precision_class

    @property
    def recipe_text(self) -> str | None:
        """How the weights were quantized, where the subject's own recipe does not say it."""
        told = self.quantization.library if self.quantization is not None else {}
        return ", ".join(f"{name} {value}" for name, value in sorted(told.items())) or None

    @property
    def time_of_a_sum(self) -> Spread | None:
        """How long the ranks take to sum one token's hidden state, in ns; None where none share the model."""
        return None

    @property
    def made_from(self) -> str | None:
        """The checkpoint that the weights were converted from, by its name or path; None where the subject
        names it, or nobody does."""
        return None

    @property
    def adapter(self) -> str | None:
        """The LoRA adapter that was merged into the weights before they were loaded."""
        return None


class RuntimeOptions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="runtime"
):
    """What only one runtime needs to know. A subclass's tag is the runtime's name.

    The class attributes are facts of the runtime:

    - `loader` says where its stack is imported, as `module:class`, and `description` is the type of what it
      tells of a loaded model; the versions of `packages` can change its figures. `diagnosis` is the module
      that finds what the stack lacks on a machine (`xpubench.runtimes.findings.Diagnosis`).
    - `int4_method` names the kind of INT4 checkpoint that it runs (None: it takes no `--woq`, and
      `int4_refusal` says why), `int4_head` the precision of the output head then, and `int4_dtypes` the dtype
      that INT4 needs on a device.
    - `preferred_where` is the capability among the findings of `xpubench doctor` with which the runtime is
      preferred to the default one; None of a runtime that is not.
    - `shards` is the runtime whose model it shares among ranks.
    - `one_graph_on` holds the kinds of devices on which it runs a step as one graph, without Python between
      its operators.
    - `hides_logits` says why nothing can be scored, of a stack that keeps its logits to itself.
    - `scoring_variables` are set for accuracy runs before the stack is imported, unless the user set them.
      Models of the types `scored_alone` are scored a sequence at a time.
    - `flags` are those that the runtime reads, under `flags_title` in help, and `shortcut` is the flag that
      chooses the runtime as `--runtime` does; help and lists leave out a runtime that is not `listed`.
    """

    loader: ClassVar[str]
    description: ClassVar[type[RuntimeDescription]]
    packages: ClassVar[tuple[str, ...]] = ()
    diagnosis: ClassVar[str | None] = None
    int4_method: ClassVar[str | None] = OWN_INT4_METHOD
    int4_head: ClassVar[str] = "int8"
    int4_dtypes: ClassVar[dict[str, str]] = {}
    int4_refusal: ClassVar[str] = ""
    preferred_where: ClassVar[str | None] = None
    shards: ClassVar[str | None] = None
    one_graph_on: ClassVar[tuple[str, ...]] = ()
    hides_logits: ClassVar[str | None] = None
    listed: ClassVar[bool] = True
    scoring_variables: ClassVar[dict[str, str]] = {}
    scored_alone: ClassVar[frozenset[str]] = frozenset()
    flags: ClassVar[tuple[Flag, ...]] = ()
    flags_title: ClassVar[str] = "runtime"
    shortcut: ClassVar[Flag | None] = None

    @classmethod
    def name(cls) -> str:
        """The runtime's name, which is the tag of its class."""
        return str(cls.__struct_config__.tag)

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser, added: dict[str, Flag]) -> None:
        """Adds the flags that the runtime reads, except those that another runtime has `added` already."""
        missing = [one for one in cls.flags if one.name not in added]
        if not missing and cls.shortcut is None:
            return
        group = parser.add_argument_group(cls.flags_title)
        for one in missing:
            group.add_argument(one.name, **one.settings)
            added[one.name] = one
        cls.add_shortcut(group)

    @classmethod
    def add_shortcut(cls, group: argparse._ActionsContainer) -> None:
        """Adds the flag that chooses the runtime, where it has one."""
        if cls.shortcut is not None:
            name, settings = cls.shortcut
            group.add_argument(name, action=Choose, nargs=0, const=cls.name(), dest="runtime", **settings)

    @classmethod
    def device_kind(cls, args: argparse.Namespace, device: str) -> str:
        """The kind of device that a run is on, for runtimes with a flag of their own that names one; by
        default the `device` of all. UserError where the two contradict each other."""
        return device

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        """The options that the flags ask for on a device, by default each field from the flag of its name.
        UserError where they contradict each other."""
        return cls(**cls.fields_from(args))

    @classmethod
    def fields_from(cls, args: argparse.Namespace) -> dict[str, Any]:
        """The fields that have a flag of their name, and its value."""
        return {one.dest: getattr(args, one.dest) for one in cls.flags if one.dest in cls.__struct_fields__}

    @classmethod
    def from_version_1(cls, subject: dict[str, Any]) -> dict[str, Any]:
        """The fields of the options in a subject of the record's schema version 1, which held those of all
        runtimes."""
        return {name: subject[name] for name in cls.__struct_fields__ if name in subject}

    def set_fields(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON values."""
        defaults = msgspec.to_builtins(type(self)())
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in fields.items() if value != defaults[name]}

    def identity(self) -> dict[str, Any]:
        """The part of a run's identity, from which its id is made, that the options add."""
        return {"runtime": self.name()} | self.set_fields()

    @property
    def defects_as(self) -> str | None:
        """The name under which the catalog lists the defects that a run with these options can meet."""
        return self.name()

    @property
    def label(self) -> str:
        """The runtime's name in a table, with the options that make it another stack."""
        return self.name()

    @property
    def words(self) -> list[str]:
        """What the options add to the title of a run."""
        return []

    @property
    def precision(self) -> str | None:
        """The precision of the weights, where the options choose it instead of the subject's dtype."""
        return None

    @property
    def compiles(self) -> bool:
        """Whether each workload's steps are compiled anew before they run."""
        return False

    @property
    def explaining_variables(self) -> dict[str, str]:
        """What is set before the stack is imported, unless the user set it, for runs whose tokens are
        explained; its names are among `xpubench.environment.EXPLAINING_VARIABLES`."""
        return {}

    def advice(
        self, cause: str, subject: "Subject", workload: "Workload", description: RuntimeDescription | None
    ) -> list[str]:
        """What this runtime's own flags can do for a token that `cause` bounds, one of
        `xpubench.explanation.Cause`, of a model that was loaded as described: only what the run does not do
        already."""
        return []

    def weight_bytes(self, model: str, parameters: int) -> int | None:
        """A lower bound of the bytes that `parameters` weights take, where the runtime stores them otherwise
        than the subject's dtype and recipe say; None where it does not."""
        return None

    @property
    def least_kv_value_bytes(self) -> float | None:
        """A lower bound of the bytes of a value in the KV cache, where the runtime stores it otherwise than
        in the subject's dtype; None where it does not."""
        return None


def type_bytes(name: str) -> float:
    """The bytes of a value of a type that has its bits in its name, such as u8, f16 or q4_0, without scales;
    1 where it has none."""
    bits = re.search(r"\d+", name)
    return int(bits[0]) / 8 if bits else 1.0


def default_dtype(device: str) -> Literal["bfloat16", "float16"]:
    """The dtype of a run that names none: the guide's float16, but bfloat16 on a CPU, which is slow in
    float16."""
    return "bfloat16" if device == "cpu" else "float16"


class Choose(argparse.Action):
    """A flag that chooses the runtime; UserError where an earlier flag chose another one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        chosen = self.const if self.nargs == 0 else values
        before = getattr(namespace, self.dest)
        if before is not None and before != chosen:
            raise UserError(
                f"{option_string} chooses {chosen}, another flag chose {before}; leave one of the two out"
            )
        setattr(namespace, self.dest, chosen)
