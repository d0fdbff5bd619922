"""How the harness calls `torch.xpu`, with a double in its place that refuses what the real one would."""

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from xpubench.measure import bandwidth
from xpubench.measure.device import TorchDevice

REAL = torch.xpu
GB = 10**9
PROPERTIES = SimpleNamespace(name="Arc", driver_version="1.6.33578", total_memory=12 * GB)


class XpuDouble:
    """Answers the calls that fit the signatures of the installed `torch.xpu`; an answer that is an error is
    raised, and a name in `absent` is one that an older torch lacks."""

    def __init__(self, **answers: Any) -> None:
        self.absent: set[str] = set()
        self.answers: dict[str, Any] = {
            "is_available": True,
            "current_device": 0,
            "get_device_name": "Intel(R) Arc(TM) B580 Graphics",
            "get_device_properties": PROPERTIES,
            "mem_get_info": (9 * GB, 12 * GB),
            "max_memory_allocated": 3 * GB,
            "synchronize": None,
            "reset_peak_memory_stats": None,
            "empty_cache": None,
        } | answers

    def __getattr__(self, name: str) -> Any:
        real = getattr(REAL, name)
        if name in self.absent:
            raise AttributeError(name)
        if name not in self.answers:  # torch itself looks at more
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            inspect.signature(real).bind(*args, **kwargs)
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


@pytest.fixture
def xpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[XpuDouble]:
    double = XpuDouble()
    monkeypatch.setattr(torch, "xpu", double)
    torch.get_device_module.cache_clear()
    yield double
    torch.get_device_module.cache_clear()


def test_the_double_refuses_what_torch_has_not(xpu: XpuDouble) -> None:
    with pytest.raises(AttributeError):
        torch.xpu.no_such_function()
    with pytest.raises(TypeError):
        torch.xpu.synchronize(0, 1)


def test_properties_that_a_build_lacks(xpu: XpuDouble) -> None:
    xpu.answers["get_device_properties"] = SimpleNamespace(name="Arc")
    facts = TorchDevice("xpu").facts()
    assert facts.driver is None
    assert facts.total_memory_bytes is None


@pytest.mark.parametrize(
    "answer",
    [
        (0, 12 * GB),
        (13 * GB, 12 * GB),
        (-1, 12 * GB),
        (0, 0),
        NotImplementedError(),
        AssertionError("Torch not compiled with XPU enabled"),
    ],
    ids=str,
)
def test_free_memory_that_an_integrated_gpu_does_not_know(xpu: XpuDouble, answer: object) -> None:
    xpu.answers["mem_get_info"] = answer
    assert TorchDevice("xpu").facts().free_memory_bytes is None


def test_free_memory_of_a_torch_that_cannot_ask(xpu: XpuDouble) -> None:
    xpu.absent.add("mem_get_info")
    assert TorchDevice("xpu").facts().free_memory_bytes is None


class OnCpu(TorchFunctionMode):  # type: ignore[misc]
    """Makes on the CPU what is asked for on xpu."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "xpu":
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


@pytest.mark.parametrize("free_and_total", [(2**29, 2**34), (0, 2**29)])
def test_bandwidth_takes_half_of_the_memory_at_most(xpu: XpuDouble, free_and_total: tuple[int, int]) -> None:
    xpu.answers["mem_get_info"] = free_and_total
    xpu.answers["get_device_properties"] = SimpleNamespace(total_memory=free_and_total[1])
    with OnCpu():
        assert bandwidth.measure_bandwidth("xpu", "float32").buffer_bytes == 2**27
