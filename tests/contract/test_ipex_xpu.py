"""What the IPEX runtime calls on xpu, against doubles with the signatures of the real functions.

There is no xpu build of IPEX here: the model stays on the CPU, and the doubles record the calls. That the
signatures are the real ones is checked by tests/ipex.
"""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.ipex.neural_compressor import save_rtn
from xpubench.runtimes.ipex.options import IpexDescription, IpexOptions
from xpubench.runtimes.ipex.runtime import IpexRuntime
from xpubench.spec import Quantization, Subject
from xpubench.weights.load import LoadedWeights

XPU_LAYERS = "intel_extension_for_pytorch.transformers.models.xpu.models.llama"


class Recorder:
    """The doubles, and the calls that they saw."""

    def __init__(self, optimizes: bool = True) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.optimizes = optimizes

    def llm_optimize(
        self,
        model: Any,
        optimizer: Any = None,
        dtype: Any = torch.float32,
        inplace: bool = False,
        device: str = "cpu",
        quantization_config: Any = None,
        qconfig_summary_file: Any = None,
        low_precision_checkpoint: Any = None,
        sample_inputs: Any = None,
        deployment_mode: bool = True,
        cache_weight_for_large_batch: bool = False,
    ) -> Any:
        assert not model.training
        arguments = {"dtype": dtype, "device": device, "inplace": inplace}
        if quantization_config is not None:
            arguments["quantization_config"] = quantization_config
        self.calls.append(("llm.optimize", arguments))
        if self.optimizes:
            replaced = type("NewIPEXLLAMADecoderLayer", (torch.nn.Identity,), {"__module__": XPU_LAYERS})
            model.model.layers[0] = replaced()
        return model

    def optimize(
        self, model: Any, dtype: Any = None, optimizer: Any = None, level: str = "O1", inplace: bool = False
    ) -> Any:
        self.calls.append(("optimize", {"dtype": dtype, "inplace": inplace}))
        return model


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny Llama that says where it was asked to go, and stays."""
    small = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
    )
    built = LlamaForCausalLM(small).train()
    moves: list[dict[str, Any]] = []

    def to(*arguments: Any, **named: Any) -> Any:
        moves.append({"to": arguments} | named)
        return built

    monkeypatch.setattr(built, "to", to, raising=False)
    built.moves = moves
    return built


def ipex_subject(**changes: Any) -> Subject:
    known: dict[str, Any] = {"model": "m", "device": "xpu", "dtype": "float16", "options": IpexOptions()}
    return Subject(**known | changes)


def description(runtime: IpexRuntime) -> IpexDescription:
    described = runtime.describe()
    assert isinstance(described, IpexDescription)
    return described


def run(monkeypatch: pytest.MonkeyPatch, model: Any, recorder: Recorder, **changes: Any) -> IpexRuntime:
    module = ModuleType("intel_extension_for_pytorch")
    module.llm = ModuleType("intel_extension_for_pytorch.llm")  # type: ignore[attr-defined]
    module.llm.optimize = recorder.llm_optimize  # type: ignore[attr-defined]
    module.optimize = recorder.optimize  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", module)
    quantization = changes.pop("quantization", None)
    subject = ipex_subject(quantization=quantization, options=IpexOptions(**changes))
    monkeypatch.setattr("xpubench.runtimes.pytorch.runtime.synchronizer", lambda device: lambda: None)
    runtime = IpexRuntime(subject, LoadedWeights(model=model))
    runtime.optimize()
    return runtime


def test_the_sequence_of_the_guide(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    recorder = Recorder()
    runtime = run(monkeypatch, model, recorder)
    assert model.moves == [{"to": ("xpu",)}, {"to": (), "memory_format": torch.channels_last}]
    assert recorder.calls == [("llm.optimize", {"dtype": torch.float16, "device": "xpu", "inplace": True})]
    assert description(runtime).ipex_optimized is True
    assert description(runtime).autocast is True


def test_a_silent_fallback_is_found_out(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    with pytest.raises(RunFailure, match="--allow-unoptimized") as caught:
        run(monkeypatch, model, Recorder(optimizes=False))
    assert caught.value.failure_class == "unsupported"
    allowed = run(monkeypatch, model, Recorder(optimizes=False), allow_unoptimized=True)
    assert description(allowed).ipex_optimized is False


def test_plain_optimize(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    recorder = Recorder()
    runtime = run(monkeypatch, model, recorder, ipex_optimize=False)
    assert recorder.calls == [("optimize", {"dtype": torch.float16, "inplace": True})]
    assert description(runtime).ipex_optimized is False


def test_autocast_on_the_device(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    asked: list[tuple[Any, ...]] = []

    class Autocast:
        def __init__(self, device_type: str, *, dtype: Any, enabled: bool) -> None:
            asked.append((device_type, dtype, enabled))

        def __enter__(self) -> None:
            return None

        def __exit__(self, *_: Any) -> None:
            return None

    monkeypatch.setattr(torch, "autocast", Autocast)
    for autocast in (True, False):
        with run(monkeypatch, model, Recorder(), autocast=autocast).inference():
            assert torch.is_inference_mode_enabled()
    assert asked == [("xpu", torch.float16, True), ("xpu", torch.float16, False)]


def test_the_variables_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS", raising=False)
    monkeypatch.setenv("TORCH_LLM_ALLREDUCE", "1")
    IpexRuntime.set_up()
    import os

    assert os.environ["SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS"] == "2"
    assert "TORCH_LLM_ALLREDUCE" not in os.environ
    monkeypatch.setenv("SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS", "1")
    IpexRuntime.set_up()
    assert os.environ["SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS"] == "1"


class Misfit:
    """IPEX 2.8.0 beside another torch: it prints, then fails in its own error handling."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name == "intel_extension_for_pytorch":
            raise AttributeError("module 'os' has no attribute 'exit'")
        return None


def test_a_misfit_says_in_one_line_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "intel_extension_for_pytorch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Misfit(), *sys.meta_path])
    with pytest.raises(UserError, match=r"does not fit torch .*requirements-ipex-xpu\.txt") as caught:
        IpexRuntime.check(ipex_subject(device="cpu", dtype="float32"))
    assert "\n" not in str(caught.value)


def test_ipex_has_no_cuda() -> None:
    with pytest.raises(UserError, match="not on cuda"):
        IpexRuntime.check(ipex_subject(device="cuda"))


class Config:
    """neural-compressor's RtnConfig with the signature that tests/ipex checks, on xpu (read, not run)."""

    def __init__(
        self,
        bits: int = 4,
        group_size: int = 32,
        compute_dtype: Any = None,
        scale_dtype: Any = None,
        sym: bool = True,
        use_layer_wise: Any = None,
        quant_lm_head: bool = False,
        **more: Any,
    ) -> None:
        self.fields = {"bits": bits, "group_size": group_size, "compute_dtype": compute_dtype}
        self.fields |= {"scale_dtype": scale_dtype, "sym": sym, "weight_dtype": "int4_fullrange"}

    def to_dict(self) -> dict[str, Any]:
        return self.fields


def test_int4_as_the_guide_does_it(
    monkeypatch: pytest.MonkeyPatch, model: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    engines, asked = [], []

    class Auto:
        @staticmethod
        def from_pretrained(directory: str, **arguments: Any) -> Any:
            engines.append(os.environ.get("IPEX_COMPUTE_ENG"))
            asked.append(arguments)
            model.quantization_config = arguments["quantization_config"]
            return model

    theirs = ModuleType("neural_compressor.transformers")
    theirs.RtnConfig, theirs.AutoModelForCausalLM = Config, Auto  # type: ignore[attr-defined]
    package = ModuleType("neural_compressor")
    package.transformers = theirs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "neural_compressor", package)
    monkeypatch.setitem(sys.modules, "neural_compressor.transformers", theirs)
    monkeypatch.setenv("IPEX_COMPUTE_ENG", "4")

    recipe = Quantization(head="high", compute_dtype="float16")
    recorder = Recorder()
    subject = ipex_subject(model=str(tiny_llama), quantization=recipe)
    loaded = IpexRuntime.weights(subject)
    runtime = run(monkeypatch, loaded.model, recorder, quantization=recipe)
    (arguments,) = asked
    assert (arguments["device_map"], arguments["torch_dtype"]) == ("xpu", torch.float16)
    expected = {"bits": 4, "group_size": 64, "compute_dtype": "fp16", "scale_dtype": "fp16", "sym": True}
    assert arguments["quantization_config"].fields == expected | {"weight_dtype": "int4_fullrange"}
    # What a run needs unset, whatever the shell had; it is set while a model is saved.
    assert engines == [None]
    assert model.moves == [{"to": ("xpu",)}, {"to": (), "memory_format": torch.channels_last}]
    optimized = recorder.calls[0][1]
    assert optimized["quantization_config"] is model.quantization_config
    assert loaded.quantization is not None
    assert loaded.quantization.compute_dtype == "float16"
    assert description(runtime).ipex_optimized is True

    moved: list[str] = []
    model.save_pretrained = lambda directory: moved.append(directory)
    save_rtn(subject, recipe, tmp_path / "int4")
    assert engines == [None, "4"]
    assert len(moved) == 1
