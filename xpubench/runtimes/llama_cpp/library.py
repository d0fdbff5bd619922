"""llama.cpp's shared library through the package llama-cpp-python: its log and its build."""

import re
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from xpubench.errors import UserError, first_line
from xpubench.measure.host import read_text

INSTALL = "build it in an environment of its own: pip install -r requirements-llama-cpp.txt"
WARNING = 3
# The instructions that make llama.cpp's kernels faster: its own names for them, and those in /proc/cpuinfo.
INSTRUCTIONS = {
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512_vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
}

_said: deque[str] = deque(maxlen=20)


@cache
def library() -> Any:
    """The module of llama.cpp's functions, initialized; UserError where it is not installed or does not
    load."""
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        what = "llama-cpp-python" if error.name == "llama_cpp" else f"{error.name}, which it needs,"
        raise UserError(f"{what} is not installed; {INSTALL}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"llama-cpp-python does not load: {first_line(error)}; {INSTALL}") from error
    llama_cpp.llama_log_set(_listener(llama_cpp), None)
    llama_cpp.llama_backend_init()
    return llama_cpp


@cache
def _listener(llama: Any) -> Any:
    """The function that llama.cpp calls with each piece of its log. The cache keeps a reference to it,
    because llama.cpp does not."""

    def listen(level: int, text: bytes, _: object) -> None:
        if level >= WARNING and text.strip():
            _said.append(text.decode(errors="replace").strip())

    return llama.llama_log_callback(listen)


def last_error() -> str:
    """The last warning or error in llama.cpp's log."""
    return _said[-1] if _said else "it gives no reason"


def build() -> str:
    """llama.cpp's description of its build: the instructions and libraries that it was compiled for."""
    return str(library().llama_print_system_info().decode())


def unused_instructions(build: str, cpuinfo: str) -> list[str]:
    """The instructions that this processor has, by /proc/cpuinfo, and that the build was not compiled for."""
    compiled = set(re.findall(r"(\w+) = 1", build))
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    there = set(flags[1].split()) if flags else set()
    return [name for name, flag in INSTRUCTIONS.items() if flag in there and name not in compiled]


def cpu_doubts() -> list[str]:
    """A warning about a build that does not use instructions which the processor has."""
    unused = unused_instructions(build(), read_text(Path("/proc/cpuinfo")) or "")
    if not unused:
        return []
    return [
        f"this build of llama.cpp lacks {', '.join(unused)}, which the processor has: its figures "
        "understate llama.cpp; build it on this machine (docs/llama-cpp.md)"
    ]
