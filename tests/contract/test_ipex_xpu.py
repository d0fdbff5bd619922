"""What the IPEX runtime does before IPEX is imported, or where it does not import.

tests/ipex_xpu runs it over IPEX's own xpu layer, tests/ipex over the CPU build.
"""

import os
import sys
from typing import Any

import pytest

from xpubench.errors import UserError
from xpubench.runtimes.ipex.options import IpexOptions
from xpubench.runtimes.ipex.runtime import IpexRuntime
from xpubench.spec import Subject


def test_the_variables_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS", raising=False)
    monkeypatch.setenv("TORCH_LLM_ALLREDUCE", "1")
    IpexRuntime.set_up()
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
        IpexRuntime.check(Subject(model="m", device="cpu", dtype="float32", options=IpexOptions()))
    assert "\n" not in str(caught.value)


def test_ipex_has_no_cuda() -> None:
    with pytest.raises(UserError, match="not on cuda"):
        IpexRuntime.check(Subject(model="m", device="cuda", dtype="float16", options=IpexOptions()))
