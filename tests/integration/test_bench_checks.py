"""The benchmark of the checks: what it counts, and the parts of it that one can choose."""

from pathlib import Path

import pytest

from benchmarks import checks
from benchmarks.checks import warned_of
from tests.conftest import CommandLine
from xpubench.accuracy.neighbours import neighbour_doubts
from xpubench.record import NeighbourChecks


def test_the_benchmark_counts_what_clean_runs_are_warned_of(scripted: CommandLine, tmp_path: Path) -> None:
    """The words by which it knows them are those of real warnings."""
    near_tie = {"wrong_tokens": [{"token": 7, "first": 3, "last": 3}], "regret": 1e-6}
    text = {"tokens": list(range(100, 132))}
    kinds = []
    for script, flags in (
        (text, ("--num-iter", 6)),
        ({**text, **near_tie}, ()),
        ({"tokens": [100, 101]}, ()),
        ({"tokens": [100]}, ("--max-new-tokens", 8)),
    ):
        (record,) = scripted(script, *flags).records
        kinds.append(warned_of(record["warnings"]))
    reference = tmp_path / "results" / f"{record['id']}.json"
    loose = ("--reference", reference, "--max-kl", 100, "--min-agreement", 0, "--max-new-tokens", 8)
    (other,) = scripted(text, *loose, "--results-dir", tmp_path / "again").records
    kinds.append(warned_of(other["warnings"]))
    neighbours = NeighbourChecks(repeatable=True, difference=0.1, limit=1.0)
    kinds.append(warned_of(neighbour_doubts(neighbours)))
    degenerate_output = ("degenerate output",)
    assert kinds == [
        (),
        ("near ties",),
        degenerate_output,
        degenerate_output,
        ("divergence",),
        ("neighbours",),
    ]


@pytest.mark.parametrize(
    ("words", "ran", "code"),
    [
        ((), ["planted", "clean", "clock", "share", "operators"], 1),
        (("--only", "operators", "clock"), ["operators", "clock"], 0),
        (("--only", "clean"), ["clean"], 1),
    ],
)
def test_parts_of_it_alone(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], ran: list[str], code: int
) -> None:
    called: list[str] = []

    def part(name: str) -> int:
        called.append(name)
        return int(name == "clean")

    monkeypatch.setattr(checks, "PARTS", {name: lambda *_, name=name: part(name) for name in checks.PARTS})
    assert (checks.main(words), called) == (code, ran)


def test_a_part_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        checks.main(["--only", "dirty"])
    assert "planted" in capsys.readouterr().err


def test_clean_runs_that_are_warned_of_have_a_figure_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def runs(_: Path) -> list[checks.Ran]:
        kinds = [(), ("near ties",), ("near ties", "neighbours")]
        return [checks.Ran("none", "a setting", "ok", "", warned) for warned in kinds]

    monkeypatch.setattr(checks, "clean", runs)
    assert checks.main(["--only", "clean"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 alarms in 3 clean runs" in shown
    assert "warnings of the checks in 2 of 3 clean runs: near ties in 2, neighbours in 1" in shown
