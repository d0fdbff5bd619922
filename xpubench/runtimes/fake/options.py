"""The hidden flags, options and descriptions of the fake runtime and of the one with planted faults."""

import argparse
from typing import Any, ClassVar, Self

from xpubench.errors import UserError
from xpubench.runtimes.options import Flag, RuntimeDescription, RuntimeOptions, flag
from xpubench.runtimes.pytorch.options import (
    COMPILE_FLAGS,
    PyTorchOptions,
    TransformersDescription,
    compile_backend,
)


class FakeDescription(RuntimeDescription, kw_only=True, frozen=True, tag="fake"):
    """The description of the fake runtime's model, which does not exist."""


class FakeOptions(RuntimeOptions, kw_only=True, frozen=True, tag="fake"):
    """`script` is the path of a JSON file that holds a `xpubench.runtimes.fake.script.Script`."""

    loader: ClassVar[str] = "xpubench.runtimes.fake.runtime:FakeRuntime"
    description: ClassVar[type[RuntimeDescription]] = FakeDescription
    listed: ClassVar[bool] = False
    flags: ClassVar[tuple[Flag, ...]] = (flag("--fake-script", help=argparse.SUPPRESS),)

    script: str

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        if args.fake_script is None:
            raise UserError(f"--runtime {cls.name()} needs --fake-script FILE")
        return cls(script=args.fake_script)

    def identity(self) -> dict[str, Any]:
        # The script is how the stack behaves, which is no part of what was asked for.
        return {"runtime": self.name()}


class FaultyDescription(TransformersDescription, kw_only=True, frozen=True, tag="faulty"):
    """A model with a fault."""


class FaultyOptions(PyTorchOptions, kw_only=True, frozen=True, tag="faulty"):
    """`fault` is one of `xpubench.runtimes.fake.faults.FAULTS` or of `slow_downs.SLOW_DOWNS` beside it; None
    plants none."""

    loader: ClassVar[str] = "xpubench.runtimes.fake.faulty:FaultyRuntime"
    description: ClassVar[type[RuntimeDescription]] = FaultyDescription
    listed: ClassVar[bool] = False
    flags: ClassVar[tuple[Flag, ...]] = (*COMPILE_FLAGS, flag("--fault", help=argparse.SUPPRESS))

    fault: str | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        return cls(torch_compile=compile_backend(args), fault=args.fault)

    def identity(self) -> dict[str, Any]:
        return {"runtime": self.name()} | self.set_fields()
