"""`--no-onednn-decode`: oneDNN is off in the steps of one token alone, and the record says so."""

import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CommandLine

FLAG = "--no-onednn-decode"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The rows of each product of the model's first layer, and whether oneDNN was on then."""
    found: list[tuple[int, bool]] = []
    linear = torch.nn.Linear.forward

    def watched(self: torch.nn.Linear, given: torch.Tensor) -> torch.Tensor:
        found.append((given.shape[-2], torch.backends.mkldnn.enabled))
        return linear(self, given)

    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    return found


def run(generate: CommandLine, model: Path, *flags: object) -> dict[str, Any]:
    done = generate(model, *flags, "--json")
    assert done.code == 0, done.err
    record: dict[str, Any]
    (record,) = done.records
    return record


@pytest.mark.parametrize("search", [[], ["--num-beams", 2], ["--use-static-cache"]])
def test_onednn_is_off_in_the_steps_of_one_token_alone(
    generate: CommandLine, tiny_llama: Path, seen: list[tuple[int, bool]], search: list[object]
) -> None:
    stock = run(generate, tiny_llama, *search)
    assert {on for _, on in seen} == {True}
    assert stock["runtime"]["steps_without_onednn"] is None
    seen.clear()
    without = run(generate, tiny_llama, FLAG, *search)
    # Prompts have 8 tokens; the checked tokens are scored in one pass, which has more rows too.
    assert {on for rows, on in seen if rows > 1} == {True}
    generating = [on for rows, on in seen if rows == 1]
    assert generating.count(False) >= 5 * 3
    # A looked-at, a warm-up and two measured generations, of three steps each.
    assert without["runtime"]["steps_without_onednn"] == 4 * 3
    assert torch.backends.mkldnn.enabled
    assert without["output"] == stock["output"]
    assert without["id"] != stock["id"]
    assert without["spec"]["subject"]["options"]["onednn_decode"] is False


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64", reason="names of x86-64's features"
)
def test_a_record_says_with_what_onednn_computes_bfloat16(generate: CommandLine, tiny_llama: Path) -> None:
    text = Path("/proc/cpuinfo").read_text()
    features = set(next(line for line in text.splitlines() if line.startswith("flags")).split())
    told = run(generate, tiny_llama)["runtime"]["onednn_bfloat16"]
    # Before AVX-512, oneDNN computes bfloat16 only with AVX-NE-CONVERT.
    assert (told == "none") == features.isdisjoint({"avx512bw", "avx_ne_convert"})
    assert (told == "amx") == ("amx_tile" in features)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--device", "xpu"), "is for a CPU, and this run is on xpu"),
        (("--runtime", "ipex"), "no effect on --runtime ipex"),
        (("--accuracy-only",), "has no effect on whole texts"),
    ],
)
def test_where_it_has_no_effect_it_is_refused(
    generate: CommandLine, tiny_llama: Path, flags: tuple[object, ...], message: str
) -> None:
    done = generate(tiny_llama, FLAG, *flags)
    assert done.code == 2
    assert message in done.error_line


def test_it_goes_together_with_a_compiler(generate: CommandLine, tiny_llama: Path) -> None:
    flags = ("--torch-compile", "--backend", "eager", "--use-static-cache")
    record = run(generate, tiny_llama, FLAG, *flags)
    assert record["runtime"]["steps_without_onednn"] == 4 * 3
    assert record["runtime"]["compile"]["graphs"] >= 1
