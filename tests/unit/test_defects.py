"""The known defects of stacks: which runs meet them, and where a user reads of them."""

from pathlib import Path
from typing import Any

import pytest

from xpubench.catalog.defects import defects, defects_of
from xpubench.cli.main import main

IPEX: dict[str, Any] = {"runtime": "ipex", "device": "xpu", "int4": False, "ranks": 1}


def ids(**asked: Any) -> list[str]:
    return [one.id for one in defects_of(**IPEX | asked)]


def test_a_defect_counts_where_all_that_it_names_is_true() -> None:
    asked = {"model_type": "glm", "num_beams": 4, "cache": "dynamic"}
    assert ids(**asked) == ["ipex-causal-mask", "ipex-beams-dynamic"]
    assert ids(**asked, block_loads_2d=True) == ["ipex-beams-dynamic"]
    assert ids(**asked | {"num_beams": 1}, block_loads_2d=False) == ["ipex-causal-mask"]
    assert ids(**asked | {"cache": "static"}, block_loads_2d=True) == []
    assert "ipex-int4-glm" in ids(model_type="glm", int4=True)
    assert ids(model_type="baichuan", int4=True) == ["ipex-int4-name"]
    assert ids(model_type="qwen2") == ids(model_type=None) == []
    assert ids(model_type="qwen2", ranks=2) == ids(model_type="phi3", ranks=2, block_loads_2d=True)
    assert ids(model_type="qwen2", ranks=2) == ["ipex-mlp-sum"]
    assert ids(model_type="llama", ranks=2, block_loads_2d=True) == []
    assert ids(**asked | {"device": "cpu"}) == ids(**asked | {"runtime": "pytorch"}) == []


def test_each_says_where_it_was_seen() -> None:
    assert len({one.id for one in defects()}) == len(defects()) >= 4
    assert all(one.source.startswith("IPEX 2.8.10+xpu: ") for one in defects())


def test_dry_run_names_those_that_a_suite_would_meet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "s.toml"
    suite.write_text(
        'title = "two"\n[[grid]]\nmodels = ["meta-llama/Llama-2-7b-hf", "Qwen/Qwen2-7B"]\n'
        'flags = "--benchmark --ipex --device xpu --dtype float16"\n'
        'vary = [["--greedy", "--greedy --disable_optimize_transformers"]]\n'
    )
    main(["suite", str(suite), "--dry-run", "--results-dir", str(tmp_path)])
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("known defect")]
    assert len(told) == 1
    assert "llama" in told[0]
    assert "causal mask" in told[0]
