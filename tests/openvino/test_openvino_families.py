"""Every validated family through the export and the four runtimes (a step of `make test`)."""

from pathlib import Path

import pytest

pytest.importorskip("openvino_genai")

from tests.conftest import CommandLine  # after the check that there is something to test
from tests.openvino.models import FAMILIES, RUNTIMES, save_model, tokens


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "glm"])
def test_tokens_are_those_of_pytorch(
    xpubench: CommandLine, generate: CommandLine, tmp_path: Path, family: str
) -> None:
    model, ir = save_model(tmp_path / family, family), tmp_path / "ir"
    flags = ("--batch-size", 2, "--max-new-tokens", 12, "--json")
    expected = tokens(generate(model, *flags))
    assert xpubench("export", model, ir, "--weight-format", "fp32").code == 0
    for runtime in RUNTIMES:
        assert tokens(generate(ir, "--runtime", runtime, *flags)) == expected, runtime


def test_a_family_that_optimum_does_not_export(xpubench: CommandLine, tmp_path: Path) -> None:
    done = xpubench("export", save_model(tmp_path / "glm", "glm"), tmp_path / "ir")
    assert done.code == 1
    assert "unsupported: Optimum Intel cannot export" in done.error_line
