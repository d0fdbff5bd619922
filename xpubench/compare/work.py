"""When two runs did the same work. There are two keys.

The exact key is the run's id, a hash of its whole spec: model by name, stack with its options, device, dtype,
recipe, workload and protocol. By it `xpubench compare` pairs the runs of two directories, so that a stack is
compared with itself alone.

The work key leaves out the stack: two runs did the same work where the model, the workload and the precision
class are equal, whatever the stack, its options, the device and the environment. By it `xpubench report
--diff` pairs, and `xpubench compare` where its two sides have no stack in common.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

from xpubench.catalog import find_model
from xpubench.record import Record
from xpubench.spec import DTYPE_BYTES, AccuracySpec, Quantization

# A precision class of quantized weights is their type; the dtype that computes may then differ.
QUANTIZED = ("int", "fp8")
# The beginning of the name of a model that only its weights identify.
WEIGHTS = "weights "
# The number of hexadecimal digits of a digest that are shown.
DIGITS = 12


class Work(NamedTuple):
    """What a run did, without the stack that did it: the model's name, which stands for all names of its
    weights, the precision class, and the rest as JSON: weights or dummies, LoRA adapter, ranks, and the
    workload or the task."""

    model: str
    precision: str
    rest: str


def exact_key(record: Record) -> str:
    """The id of the run: equal specs have equal ids wherever the weights and the passages lie."""
    return record.id


def work_keys(records: Sequence[Record]) -> list[Work]:
    """The work of each record. Which names stand for one model depends on all the records together. One that
    failed before its model was loaded did the work of a record of its id that loaded, where there is one."""
    loaded = {exact_key(record): record for record in records if record.runtime is not None}
    records = [
        loaded.get(exact_key(record), record) if record.runtime is None else record for record in records
    ]
    named = zip(model_names(records), records, strict=True)
    return [Work(name, precision_class(record), _rest(record)) for name, record in named]


def stack_key(record: Record) -> str:
    """The stack that did the work, as JSON: runtime with its options, device, dtype, recipe and kind of
    cache."""
    spec = record.spec
    subject = spec.subject
    recipe = subject.quantization and msgspec.structs.replace(subject.quantization, checkpoint=None)
    cache = None if isinstance(spec, AccuracySpec) else spec.workload.cache
    return msgspec.json.encode([subject.options, subject.device, subject.dtype, recipe, cache]).decode()


def other_model(one: Record, other: Record) -> str | None:
    """How the models of two records differ; None where they are one, by the weights or by the checkpoint's
    name."""
    first, second = model_names([one, other])
    if first == second:
        return None
    sources = [_source(record) for record in (one, other)]
    names = [PurePath(source).name for source in sources]
    if names[0].lower() != names[1].lower():
        return f"another model: {names[0]} and {names[1]}"
    digests = [(_digest(record) or "not known")[:DIGITS] for record in (one, other)]
    return f"another model: {sources[0]} with weights {digests[0]} and {sources[1]} with weights {digests[1]}"


def model_names(records: Sequence[Record]) -> list[str]:
    """One name for the model of each record, the same for records of one model: their weights have one
    fingerprint, or the checkpoints that they came from have one name. A directory has the name of a model
    on the hub whose last part is its own, where there is one such, unless its weights are others."""
    names, digests = _names(records), [_digest(record) for record in records]
    known: defaultdict[str, set[str]] = defaultdict(set)
    for name, digest in zip(names, digests, strict=True):
        if digest is not None:
            known[name].add(digest)
    groups = _Groups()
    firsts = []
    for record, name, digest in zip(records, names, digests, strict=True):
        own = [] if digest is None else [WEIGHTS + digest]
        if digest is None or len(known[name]) == 1 or not _is_path(_source(record)):
            own.append(name)
        for token in own[1:]:
            groups.join(own[0], token)
        firsts.append(own[0])
    return [groups.name_of(first) for first in firsts]


def checkpoint_name(record: Record) -> str:
    """The name of the checkpoint that the weights came from in lower case, of a path the last part; the
    catalog's id where it is one of its models."""
    source = _source(record)
    name = PurePath(source).name if _is_path(source) else source
    known = find_model(name)
    return known.id if known else name.lower()


def _names(records: Sequence[Record]) -> list[str]:
    """The checkpoint's name of each record; that of a path is the name on the hub with that last part."""
    names = [checkpoint_name(record) for record in records]
    paths = [_is_path(_source(record)) for record in records]
    by_last_part: defaultdict[str, set[str]] = defaultdict(set)
    for name, path in zip(names, paths, strict=True):
        if not path:
            by_last_part[PurePath(name).name].add(name)
    found = []
    for name, path in zip(names, paths, strict=True):
        there = by_last_part[name] if path else set()
        found.append(next(iter(there)) if len(there) == 1 else name)
    return found


def precision_class(record: Record) -> str:
    """What really ran: the type of quantized weights (int4, int8), else the dtype of the computations. Of
    a run that failed before its model was loaded, what was asked for."""
    subject, loaded = record.spec.subject, record.runtime
    if loaded is not None and (told := loaded.precision_class) is not None:
        return told
    if subject.quantization is not None:
        return "int4"
    asked = subject.options.precision or ""
    return asked if asked.startswith(QUANTIZED) or asked in DTYPE_BYTES else subject.dtype


def recipe_text(record: Record) -> str | None:
    """How the weights were quantized, in words; None where they were not, or nobody knows."""
    recipe, loaded = record.spec.subject.quantization, record.runtime
    if recipe is not None:
        applied = loaded.quantization if loaded is not None else None
        kind = recipe.weight_dtype if applied is None else applied.weight_dtype or recipe.weight_dtype
        return _own_recipe(msgspec.structs.replace(recipe, weight_dtype=kind))
    return loaded.recipe_text if loaded is not None else None


def _own_recipe(recipe: Quantization) -> str:
    head = "INT8 head" if recipe.head == "int8" else "head not quantized"
    return f"{recipe.title}, {recipe.scale_dtype} scales, {head}"


def _rest(record: Record) -> str:
    spec, subject = record.spec, record.spec.subject
    work: Any
    if isinstance(spec, AccuracySpec):
        # Neither the place of the passages changes the work, nor how many are scored at a time.
        work = msgspec.structs.replace(spec.task, data=None, batch_size=0)
    else:
        # Another cache is another way to do the same work.
        work = msgspec.structs.replace(spec.workload, cache="dynamic")
    return msgspec.json.encode([subject.weights, record.adapter, subject.tp_size, work]).decode()


def _source(record: Record) -> str:
    """The checkpoint that the weights came from, by its name or path."""
    told = record.runtime.made_from if record.runtime is not None else None
    return told or record.spec.subject.model


def _is_path(name: str) -> bool:
    # Relative paths that look like a name of the hub are recorded with ./.
    return name.startswith(("/", ".", "~"))


def _digest(record: Record) -> str | None:
    return None if record.fingerprint is None else record.fingerprint.weights


class _Groups:
    """Names that stand for one thing; each group has the name that comes first in its order."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def name_of(self, one: str) -> str:
        while one in self._above:
            one = self._above[one]
        return one

    def join(self, one: str, other: str) -> None:
        # A model that has a name is not called by its weights.
        both = map(self.name_of, (one, other))
        first, second = sorted(both, key=lambda name: (name.startswith(WEIGHTS), name))
        if first != second:
            self._above[second] = first
