"""What differs in the environments of two sides, and in the checkpoints that they loaded."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from xpubench.environment import EXPLAINING_VARIABLES
from xpubench.record import Record

# Facts of one moment, which differ between any two runs.
VOLATILE = (
    *("device.free_memory_bytes", "host.available_memory_bytes", "host.load_average_1min"),
    *("harness.commit", "harness.version"),
)
SET_TO_EXPLAIN = frozenset(f"variables.{name}" for name in EXPLAINING_VARIABLES)
MOST_VALUES = 3
# The number of hexadecimal digits of a digest that are shown.
DIGITS = 12


class EnvironmentDifference(msgspec.Struct, frozen=True):
    """A fact of the environments that is not the same on both sides: its values, the most frequent first."""

    name: str
    a: str
    b: str


class Environments:
    """How often the environments of a side have each lasting fact, and its checkpoints each fingerprint."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.checkpoints: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts the facts of one more record."""
        for name, value in _shown_facts(record):
            self.counts[name][value] += 1
        if record.fingerprint is not None:
            # A model may be a directory here and a name on the hub.
            model = Path(record.spec.subject.model).name.lower()
            for part, digest in msgspec.structs.asdict(record.fingerprint).items():
                if digest is not None:
                    self.checkpoints[f"{part} of {model}"][digest[:DIGITS]] += 1


def lasting_facts(record: Record) -> Iterator[tuple[str, str]]:
    """The lasting facts of a record's environment, by their dotted paths, which are equal for runs that
    repeat each other. What `--explain` set is none of them."""
    return ((name, value) for name, value in _shown_facts(record) if name not in SET_TO_EXPLAIN)


def _shown_facts(record: Record) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in record.environment.facts() if name not in VOLATILE)


def differences(a: Environments, b: Environments) -> list[EnvironmentDifference]:
    """The facts that differ between both sides, by name. First come the checkpoints of models whose
    fingerprint both sides know (records of dummy weights, and early records, have none), then the facts
    of the environments."""
    known = a.checkpoints.keys() & b.checkpoints.keys()
    return [
        *_differing(a.checkpoints, b.checkpoints, known),
        *_differing(a.counts, b.counts, a.counts.keys() | b.counts.keys()),
    ]


def _differing(
    a: Mapping[str, Counter[str]], b: Mapping[str, Counter[str]], names: Iterable[str]
) -> Iterator[EnvironmentDifference]:
    for name in sorted(names):
        one, other = (side.get(name, Counter()) for side in (a, b))
        if one.keys() != other.keys():
            yield EnvironmentDifference(name, _values(one), _values(other))


def _values(counts: Counter[str]) -> str:
    if not counts:
        return "absent"
    shown = " | ".join(value for value, _ in counts.most_common(MOST_VALUES))
    return shown + (f" and {len(counts) - MOST_VALUES} more" if len(counts) > MOST_VALUES else "")
