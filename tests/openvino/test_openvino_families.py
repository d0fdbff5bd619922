"""Every validated family through the export and the four runtimes."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino_genai")

from tests.conftest import CommandLine  # after the check that there is something to test
from tests.openvino.models import FAMILIES, RUNTIMES, save_model, tokens
from xpubench.runtimes.openvino.options import OpenVinoBaseOptions
from xpubench.runtimes.registry import loader
from xpubench.spec import Subject, Workload


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
    beams_are_those_of_transformers(model, ir)


def beams_are_those_of_transformers(model: Path, ir: Path) -> None:
    """OpenVINO's base runtime finds the sequences that transformers' `generate` finds, a stamp a step."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    # With a cache of eight bits, sequences of nearly equal probability would change places.
    own = OpenVinoBaseOptions(config={"KV_CACHE_PRECISION": "f32"})
    subject = Subject(model=str(ir), device="cpu", dtype="float32", options=own)
    found, expected = loader("openvino-base").load(subject), AutoModelForCausalLM.from_pretrained(model)
    expected.generation_config = GenerationConfig(pad_token_id=0)
    search = {"num_beams": 4, "max_new_tokens": 12}
    others = 0
    for batch in (1, 2):
        prompts = np.random.default_rng(batch).integers(3, 128, (batch, 7))
        workload = Workload(batch_size=batch, num_beams=4, input_tokens=7, new_tokens=12)
        found.prepare(workload)
        generation = found.generate(prompts, workload, "every_token")
        ids = torch.from_numpy(prompts)
        sequences = expected.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **search)
        assert generation.tokens.tolist() == sequences[:, 7:].tolist()
        greedy = expected.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12)
        others += generation.tokens.tolist() != greedy[:, 7:].tolist()
        assert len(generation.times.token_ns) == 12
        assert len(found.generate(prompts, workload, "end_to_end").times.token_ns) == 0
    # A search that finds what greedy search finds need not be one. A random OPT repeats one token.
    assert others or expected.config.model_type == "opt"
    found.close()


def test_a_family_that_optimum_does_not_export(xpubench: CommandLine, tmp_path: Path) -> None:
    done = xpubench("export", save_model(tmp_path / "glm", "glm"), tmp_path / "ir")
    assert done.code == 1
    assert "unsupported: Optimum Intel cannot export" in done.error_line
