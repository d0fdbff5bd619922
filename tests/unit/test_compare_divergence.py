"""Two runs' distances from a reference: what is beyond its limit, and what cannot be compared."""

import json
from pathlib import Path

import pytest

from tests import records
from tests.conftest import CommandLine
from xpubench.record import Divergence, Record


def run(agreement: float, kl: float | None, reference: str = "cpu-float32") -> Record:
    found = Divergence(
        reference=reference, top1_agreement=agreement, mean_kl=kl, first_divergence=[None], positions=128
    )
    return records.latency_record(records.subject(), divergence=found)


@pytest.mark.parametrize(
    ("base", "new", "words"),
    [
        (run(0.98, 1e-4), run(0.98, 0.09), ["mean KL from the reference 0.0001 → 0.09 nats"]),
        (run(0.98, 0.0), run(0.98, 0.002), ["mean KL from the reference 0 → 0.002 nats"]),
        (run(0.98, 0.09), run(0.98, 1e-4), []),
        (run(0.98, 0.0), run(0.98, 0.0009), []),
        (run(0.7, 0.3), run(0.7, 0.5), []),
        (run(0.98, 0.001), run(0.98, None), []),
        (run(0.98, 0.001), run(0.95, 0.001), ["top-1 agreement with the reference 3.0 points lower"]),
        (run(0.98, 0.001), run(0.975, 0.001), []),
        # What both are from is another model or another precision: no difference between them is told.
        (run(0.98, 1e-4), run(0.5, 0.9, "other.json"), []),
        (records.latency_record(records.subject()), run(0.5, 0.9), []),
    ],
)
def test_a_distance_that_grew(
    xpubench: CommandLine, tmp_path: Path, base: Record, new: Record, words: list[str]
) -> None:
    sides = records.write(tmp_path, base, "base"), records.write(tmp_path, new, "new")
    (found,) = json.loads(xpubench("compare", *sides, "--json").out)["runs"]
    assert found["beyond"] == words


def test_other_references_are_not_comparable(xpubench: CommandLine, tmp_path: Path) -> None:
    sides = [
        records.write(tmp_path, run(0.98, 1e-4, reference), name)
        for name, reference in (("base", "cpu-float32"), ("new", "other.json"))
    ]
    out = xpubench("compare", *sides).out
    assert "divergence not comparable: other references, cpu-float32 and other.json" in out
    assert "not comparable" not in xpubench("compare", sides[0], sides[0]).out
