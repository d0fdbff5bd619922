"""The emulation itself: what it must refuse, and how its GPUs differ.

Each test runs a few lines in a process with the emulation, as its modes and marks are those of a process.
"""

import sys
from pathlib import Path

import pytest

from tests.ipex_xpu.conftest import Command, ObservedOutcome


@pytest.fixture
def python(command: Command) -> Command:
    """`python(code, **options)`: the outcome of a program that has torch and the emulation."""

    def run(code: str, **options: object) -> ObservedOutcome:
        return command(sys.executable, "-c", f"import torch\n{code}", **options)

    return run


def last_line(outcome: ObservedOutcome) -> str:
    return (outcome.out or outcome.err).strip().splitlines()[-1]


MIXED = (
    "torch.ones(2, device='xpu') + torch.ones(2)",
    "torch.nn.Linear(2, 2).to('xpu')(torch.ones(2))",
    "torch.cat([torch.ones(2), torch.ones(2).to('xpu')])",
    "torch.nn.functional.embedding(torch.tensor([1]), torch.ones(2, 2, device='xpu'))",
)


def test_tensors_of_two_devices_do_not_mix(python: Command) -> None:
    done = python(
        f"for code in {MIXED!r}:\n"
        "    try:\n        eval(code); print(code, 'ran')\n"
        "    except RuntimeError as error:\n        print(str(error)[:52])"
    )
    expected = "Expected all tensors to be on the same device, but f"
    assert done.out.splitlines() == [expected] * len(MIXED), done.err


PLACES = {
    "torch.ones(2, device='xpu').device": "xpu:0",
    "torch.ones(4).to('xpu').view(2, 2)[0].device": "xpu:0",
    "torch.nn.Linear(2, 2).to('xpu').weight.device": "xpu:0",
    "torch.ones(2, device='xpu').cpu().device": "cpu",
    "(torch.ones(2, device='xpu') * torch.tensor(2)).device": "xpu:0",
    "torch.zeros_like(torch.ones(2, device='xpu')).is_xpu": "True",
    "torch.ones(2, device='xpu')[torch.tensor([0])].device": "xpu:0",
    "torch.ones(2).to(torch.ones(1, device='xpu')).device": "xpu:0",
    "torch.ones(2, device='meta').to('meta').device": "meta",
    "torch.xpu.device_count()": "1",
}


def test_where_tensors_lie(python: Command) -> None:
    done = python(f"for code in {list(PLACES)!r}:\n    print(eval(code))")
    assert dict(zip(PLACES, done.out.splitlines(), strict=True)) == PLACES, done.err


def test_a_move_copies(python: Command) -> None:
    done = python("a = torch.ones(2); b = a.to('xpu'); b += 1; print(a.tolist(), b.cpu().tolist())")
    assert last_line(done) == "[1.0, 1.0] [2.0, 2.0]"


def test_an_xpu_tensor_is_no_numpy_array(python: Command) -> None:
    assert "can't convert xpu:0 device type tensor to numpy" in last_line(
        python("torch.ones(2, device='xpu').numpy()")
    )


def test_an_index_on_xpu_does_not_index_the_cpu(python: Command) -> None:
    assert "indices should be either on cpu" in last_line(
        python("torch.ones(2)[torch.tensor([0], device='xpu')]")
    )


def test_threads_have_the_device(python: Command) -> None:
    code = "import threading\nt = threading.Thread(target=lambda: print(torch.ones(1, device='xpu').device))"
    assert last_line(python(f"{code}\nt.start(); t.join()")) == "xpu:0"


def test_memory_is_counted_and_given_back(python: Command) -> None:
    code = "a = torch.ones(2**20, device='xpu'); b = torch.xpu.memory_allocated(); del a"
    assert last_line(python(f"{code}; print(b, torch.xpu.memory_allocated())")) == f"{2**22} 0"


def test_autocast_is_that_of_torchs_own_lists(python: Command) -> None:
    """The names that the emulation casts are those that this torch registers for xpu's autocast."""
    done = python(
        "from tests.ipex_xpu.emulation import autocast\n"
        "known = {name.split('::')[1].split('.')[0].replace('linalg_', '') for name in\n"
        "         torch._C._dispatch_get_registrations_for_dispatch_key('AutocastXPU')}\n"
        "names = autocast.LOWER_PRECISION | autocast.FLOAT32 | autocast.FLOAT32_UNLESS_GIVEN\n"
        "print(sorted(name for name in names if name.strip('_').removeprefix('r') not in known\n"
        "             and name not in known))"
    )
    assert last_line(done) == "[]"


def test_autocast_casts_on_xpu(python: Command) -> None:
    done = python(
        "x = torch.ones(2, 2, device='xpu')\n"
        "with torch.autocast('xpu', dtype=torch.float16):\n"
        "    y = x @ x\n"
        "    print(y.dtype, torch.softmax(y, -1).dtype, (y + y).dtype, x.dtype)"
    )
    assert last_line(done) == "torch.float16 torch.float32 torch.float16 torch.float32"


@pytest.mark.parametrize(
    ("profile", "fused", "xetla"),
    [("pvc", True, False), ("bmg", True, False), ("arc", False, True), ("mtl", False, True)],
)
def test_what_ipex_sees_of_each_gpu(
    python: Command, source: Path, profile: str, fused: bool, xetla: bool
) -> None:
    done = python(
        "import intel_extension_for_pytorch\n"
        "from intel_extension_for_pytorch.transformers.models.xpu.optimize_transformers.modules."
        "transformer_modules.model_utils import xpu_gemm_use_xetla, xpu_sdpa_support\n"
        "print(xpu_sdpa_support(), xpu_gemm_use_xetla())",
        source=source,
        profile=profile,
    )
    assert last_line(done) == f"{fused} {xetla}"


def test_the_engine_is_read_when_ipex_is_loaded(python: Command, source: Path) -> None:
    code = "import os, intel_extension_for_pytorch\nos.environ['IPEX_COMPUTE_ENG'] = '2'\n"
    told = "print(torch.xpu.get_compute_eng() == torch.xpu.XPUComputeEng.XETLA)"
    assert last_line(python(code + told, source=source, IPEX_COMPUTE_ENG="4")) == "True"
    assert last_line(python(code + told, source=source)) == "False"


REFUSALS = {
    "bfloat16 projections": (
        "x = torch.ones(1, 4, device='xpu').bfloat16(); w = torch.ones(3, 4, 4, device='xpu').bfloat16(); "
        "ops.mm_qkv_out(x, w, None, x.clone(), x.clone(), x.clone())",
        "kHalf",
    ),
    "float32 attention": (
        "q = torch.ones(1, 1, 2, 8, device='xpu')\ntorch.xpu.IpexSDP(q, q, q, is_causal=True)",
        "IPEX SDP only supports half datatype",
    ),
    "two beams": (
        "q = torch.ones(2, 1, 1, 8, device='xpu').half(); k = q[:1]; i = torch.zeros(1, 2, dtype=torch.int32)"
        ".to('xpu'); torch.xpu.IpexSDP_Index(q, k, k, q, q, i, None, None, None, 1, 1.0, 1.0)",
        "beam search with beam size is 1 or 4",
    ),
    "mixed layer norm": (
        "x = torch.ones(1, 4, device='xpu'); w = torch.ones(4, device='xpu').half()\n"
        "ops.fast_layer_norm(x, [4], w, w, 1e-5)",
        "expected scalar type Float but found Half",
    ),
}


def test_the_kernels_refuse_what_the_real_ones_do(python: Command, source: Path) -> None:
    done = python(
        "import intel_extension_for_pytorch\nops = torch.ops.torch_ipex\n"
        f"for code in {[code for code, _ in REFUSALS.values()]!r}:\n"
        "    try:\n        exec(code); print('ran')\n"
        "    except RuntimeError as error:\n        print(str(error).replace('\\n', ' '))",
        source=source,
    )
    for line, (name, (_, words)) in zip(
        done.out.splitlines()[-len(REFUSALS) :], REFUSALS.items(), strict=True
    ):
        assert words in line, (name, done.err)


def test_int4_lies_in_two_layouts(python: Command, source: Path) -> None:
    """oneDNN's [k / 8, n] and XeTLA's [n, k / 8] stand for one weight."""
    code = (
        "import intel_extension_for_pytorch\nops = torch.ops.torch_ipex\n"
        "v = torch.randint(0, 16, (64, 8), generator=torch.Generator().manual_seed(0))\n"
        "s = torch.full((2, 8), 0.5).half(); x = torch.arange(64.).half()[None]\n"
        "p = sum((v.view(8, 8, 8)[:, i] << 4 * i) for i in range(8))\n"
        "p = torch.where(p >= 2**31, p - 2**32, p).int()\n"
        "want = x.float() @ ((v - 8) * 0.5)\n"
        "t = torch.xpu.get_compute_eng() == torch.xpu.XPUComputeEng.XETLA\n"
        "p, s = (p.t().contiguous(), s.t().contiguous()) if t else (p, s)\n"
        "got = ops.mm_int4(x.to('xpu'), p.to('xpu'), s.to('xpu'), None, 32)\n"
        "print(t, bool(((got.cpu().float() - want).abs() <= want.abs() / 500 + 1).all()))"
    )
    assert last_line(python(code, source=source)) == "False True"
    assert last_line(python(code, source=source, IPEX_COMPUTE_ENG="4")) == "True True"
