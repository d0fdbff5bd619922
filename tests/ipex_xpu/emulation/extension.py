"""The compiled module of IPEX and its generated version file, as far as its Python layer uses them."""

import enum
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

from tests.ipex_xpu.emulation.profiles import Profile

PACKAGE = "intel_extension_for_pytorch"
VERSION = "2.8.10+xpu"
ENGINE_VARIABLE = "IPEX_COMPUTE_ENG"


class XPUComputeEng(enum.IntEnum):
    """The libraries of kernels that IPEX can be told to use (csrc/gpu/utils/Settings.h)."""

    RECOMMEND = 0
    BASIC = 1
    ONEDNN = 2
    ONEMKL = 3
    XETLA = 4


class LogLevel(enum.IntEnum):
    """The levels of IPEX's log."""

    DISABLED = -1
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERR = 4
    FATAL = 5


class XPUFP32MathMode(enum.IntEnum):
    """What float32 products may be computed in."""

    FP32 = 0
    TF32 = 1
    BF32 = 2


class Settings:
    """The settings of the library. `IPEX_COMPUTE_ENG` is read once, when the library is loaded
    (csrc/gpu/utils/Settings.cpp); a change of the variable after that has no effect."""

    def __init__(self) -> None:
        self.engine = XPUComputeEng.RECOMMEND
        self.math_mode = XPUFP32MathMode.FP32

    def read_environment(self) -> None:
        value = os.environ.get(ENGINE_VARIABLE, "")
        if value.isdecimal() and int(value) in set(XPUComputeEng):
            self.engine = XPUComputeEng(int(value))

    def set_engine(self, value: int) -> bool:
        self.engine = XPUComputeEng(value)
        return True

    def set_math_mode(self, value: int) -> bool:
        self.math_mode = XPUFP32MathMode(value)
        return True


SETTINGS = Settings()


def install(profile: Profile) -> None:
    """Lets Python find the two modules that only a build of IPEX has. They come from a finder, since a
    module that is only put into `sys.modules` is no attribute of its package."""
    sys.meta_path.insert(0, _Finder(profile))


def _compiled(profile: Profile) -> dict[str, Any]:
    """The names of `intel_extension_for_pytorch._C`."""
    SETTINGS.read_environment()
    return {
        "_has_xpu": lambda: True,
        "_has_cpu": lambda: False,
        "_initExtension": lambda: None,
        "_has_2d_block_array": lambda device=-1: profile.block_loads_2d,
        "_has_xmx": lambda device=-1: profile.matrix_engines,
        "_has_fp64_dtype": lambda device=-1: profile.name in ("pvc", "bmg"),
        "_is_xetla_enabled": lambda: True,
        "_is_onemkl_enabled": lambda: True,
        "_is_syngraph_available": lambda: False,
        "_is_ds_kernel_enabled": lambda: False,
        "_is_bnb_kernel_enabled": lambda: False,
        "_is_onednn_layout_enabled": lambda: False,
        "_enable_onednn_layout": lambda: None,
        "_disable_onednn_layout": lambda: None,
        "_get_compute_eng": lambda: SETTINGS.engine,
        "_set_compute_eng": SETTINGS.set_engine,
        "_get_fp32_math_mode": lambda: SETTINGS.math_mode,
        "_set_fp32_math_mode": SETTINGS.set_math_mode,
        "_get_log_level": lambda: LogLevel.DISABLED,
        "_set_log_level": lambda value: True,
        "XPUComputeEng": XPUComputeEng,
        "LogLevel": LogLevel,
        "XPUFP32MathMode": XPUFP32MathMode,
        "FP32MathMode": XPUFP32MathMode,
    }


def _version(profile: Profile) -> dict[str, Any]:
    """The names of `intel_extension_for_pytorch._version`."""
    return {
        "__version__": VERSION,
        "__ipex_gitrev__": "emulated",
        "__torch_gitrev__": "",
        "__gpu_onednn_gitrev__": "",
        "__cpu_ideep_gitrev__": "",
        "__build_type__": "Release",
        "__build_aot__": "",
    }


def _no_names(profile: Profile) -> dict[str, Any]:
    """The part of the inductor registers shapes of operators that only a build has; eager needs none."""
    return {}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules."""

    modules: ClassVar[dict[str, Callable[[Profile], dict[str, Any]]]] = {
        f"{PACKAGE}._C": _compiled,
        f"{PACKAGE}._version": _version,
        f"{PACKAGE}._inductor.xpu": _no_names,
    }

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.modules:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        vars(module).update(self.modules[spec.name](self.profile))
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: the module is whole when it is made."""
