"""The hidden flag, the options and the description of the fake runtime."""

import argparse
from typing import Any, ClassVar, Self

from xpubench.errors import UserError
from xpubench.runtimes.options import Flag, RuntimeDescription, RuntimeOptions, flag


class FakeDescription(RuntimeDescription, kw_only=True, frozen=True, tag="fake"):
    """A model that there is none of."""


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
