"""The prompt's tokens/s and its share of the matrix products' peak, over the fake runtime."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from xpubench import catalog
from xpubench.catalog.architecture import Architecture
from xpubench.environment import DeviceFacts
from xpubench.measure.ceilings import highest_peak
from xpubench.record import PeakSample, decode
from xpubench.report.tables import diff_table, runs_table

GPU = DeviceFacts(kind="xpu", name="Arc", driver="1", total_memory_bytes=2**34)
SMOLLM2 = Architecture.from_config(catalog.model("smollm2-135m").config())
FIRST_MS = 5.0


def script(tflop_per_s: float | None) -> dict[str, Any]:
    times = [{"first_token_ns": int(FIRST_MS * 1e6)}]
    return {"every_token": times, "end_to_end": times, "device": {"peak_tflop_per_s": tflop_per_s}}


def test_a_prompts_rate_and_share_of_the_peak(scripted: CommandLine) -> None:
    (record,) = scripted(script(2.0), "--batch-size", 3, "--input-tokens", 8).records
    summary = record["summary"]
    assert summary["prompt_tokens_per_s"] == pytest.approx(3 * 8 / (FIRST_MS / 1e3))
    flop = SMOLLM2.prefill_flop(sequences=3, tokens=8)
    assert summary["prompt_share_of_peak"] == pytest.approx(flop / (FIRST_MS / 1e3) / 2e12)
    assert summary["peak_tflop_per_s"] == record["peak"]["tflop_per_s"] == 2.0
    assert record["plan"]["prefill_flop"] == flop


def test_a_device_without_a_peak_has_the_rate_alone(scripted: CommandLine) -> None:
    (record,) = scripted(script(None)).records
    assert record["summary"]["prompt_tokens_per_s"] == pytest.approx(8 / (FIRST_MS / 1e3))
    assert (record["summary"]["prompt_share_of_peak"], record["peak"]) == (None, None)


@pytest.mark.parametrize(("tflop_per_s", "warned"), [(1e-4, True), (2.0, False)])
def test_a_share_above_one_is_told(scripted: CommandLine, tflop_per_s: float, warned: bool) -> None:
    (record,) = scripted(script(tflop_per_s)).records
    assert any("matrix product" in line for line in record["warnings"]) is warned


def test_an_earlier_record_reads_without_them(scripted: CommandLine) -> None:
    (record,) = scripted(script(2.0)).records
    for name in ("prompt_tokens_per_s", "prompt_share_of_peak", "peak_tflop_per_s"):
        del record["summary"][name]
    del record["peak"]
    found = decode(msgspec.json.encode(record))
    assert found.latency is not None
    assert (found.peak, found.latency.prompt_tokens_per_s) == (None, None)


def test_the_rate_stands_beside_the_first_token(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    scripted(script(2.0))
    flags = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 2, "--results-dir", tmp_path / "other")
    told = " ".join(xpubench("generate", "-m", "smollm2-135m", *flags, *shape).out.split())
    assert "prompt 1,600.00 tokens/s (batch x input tokens / first token), 0." in told
    assert "of the 2 TFLOP/s that this device has shown in matrix products" in told
    done = xpubench("report", tmp_path / "other", "--format", "md", "-o", tmp_path / "report.md")
    assert done.code == 0, done.err
    text = (tmp_path / "report.md").read_text()
    assert "First token, ms | Prompt, tokens/s | Next token, ms" in text
    assert "| 1,600.0 |" in text


def test_the_columns_order() -> None:
    names = list(runs_table([]).columns)
    assert names.index("prompt") == names.index("first") + 1
    names = list(diff_table([]).columns)
    assert names.index("prompt_a") == names.index("prompt_b") - 1 == names.index("first") + 1


@pytest.fixture
def two_sides(scripted: CommandLine, tmp_path: Path) -> tuple[Path, Path]:
    """A prompt of 8 tokens that takes 5 ms on the first side and 4 ms on the second."""
    sides = tmp_path / "base", tmp_path / "new"
    for side, first_ms in zip(sides, (FIRST_MS, 4.0), strict=True):
        times = [{"first_token_ns": int(first_ms * 1e6)}]
        scripted({"every_token": times, "end_to_end": times}, "--results-dir", side)
    return sides


def test_a_comparison_and_a_diff_show_the_rate_of_both_sides(
    xpubench: CommandLine, two_sides: tuple[Path, Path]
) -> None:
    told = xpubench("compare", *two_sides, "--format", "md").out
    assert "| first token, ratio | prompt, tokens/s | next token, ratio |" in told
    assert "| 0.800 | 1,600.0 → 2,000.0 | 1.000 |" in told
    assert "prompt, tokens/s" in " ".join(xpubench("compare", *two_sides).out.split())
    told = xpubench("report", "--diff", *two_sides, "--format", "md").out
    assert "| First token, B / A | Prompt A, tokens/s | Prompt B, tokens/s | Next token A, ms |" in told
    assert "| 0.800 | 1,600.0 | 2,000.0 | 1.00 |" in told


def test_a_record_without_the_rate_has_a_dash(xpubench: CommandLine, two_sides: tuple[Path, Path]) -> None:
    (path,) = two_sides[0].glob("[0-9a-f]*[0-9a-f].json")
    record = msgspec.json.decode(path.read_bytes())
    del record["summary"]["prompt_tokens_per_s"]
    path.write_bytes(msgspec.json.encode(record))
    assert "| 0.800 | – | 1.000 |" in xpubench("compare", *two_sides, "--format", "md").out


def test_the_most_of_a_dtype_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def kept(tflop_per_s: float, dtype: str = "float16") -> float:
        sample = PeakSample(created="2026-11-24T00:00:00Z", tflop_per_s=tflop_per_s)
        return highest_peak(GPU, None, dtype, sample).tflop_per_s

    assert [kept(40), kept(90), kept(60)] == [40, 90, 90]
    assert kept(20, "float32") == 20
    assert len(list((tmp_path / "xpubench" / "peaks").iterdir())) == 2
