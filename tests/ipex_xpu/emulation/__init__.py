"""An emulated xpu device for stock PyTorch, and the compiled part of IPEX 2.8.10+xpu as plain PyTorch.

`install` makes `torch.device("xpu")` usable in this process and, where IPEX's source is known, lets
`import intel_extension_for_pytorch` find its unmodified Python files over the operators emulated here.

The emulation tells control flow, shapes, dtypes, state and results. It tells nothing about speed, memory,
asynchrony or the rounding of the real kernels.
"""

import os

from tests.ipex_xpu.emulation import profiles

SOURCE_VARIABLE = "IPEX_XPU_SOURCE"

__all__ = ["SOURCE_VARIABLE", "install", "profiles"]


def install() -> None:
    """Installs the device in this process, and IPEX where `IPEX_XPU_SOURCE` names its source.

    The directory, which must be on `sys.path`, is one that holds `intel_extension_for_pytorch`. KeyError for
    a hardware profile that does not exist.
    """
    from tests.ipex_xpu.emulation import collectives, device, torch_xpu

    profile = profiles.current()
    device.install()
    torch_xpu.install(profile)
    collectives.install()
    if os.environ.get(SOURCE_VARIABLE):
        from tests.ipex_xpu.emulation import extension, operators

        extension.install(profile)
        operators.register()
