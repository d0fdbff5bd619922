"""The registry of runtimes: the only file that names a runtime outside its room."""

import argparse
from collections.abc import Iterable
from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import resolve_name
from typing import TYPE_CHECKING, cast

from xpubench.errors import UserError, unknown
from xpubench.runtimes.options import Flag, RuntimeDescription, RuntimeOptions, was_given

if TYPE_CHECKING:
    from xpubench.runtimes.base import Loader
    from xpubench.runtimes.findings import Diagnosis

# The first is the default.
RUNTIMES: dict[str, str] = {
    "pytorch": "xpubench.runtimes.pytorch.options:PyTorchOptions",
    "ipex": "xpubench.runtimes.ipex.options:IpexOptions",
    "deepspeed": "xpubench.distributed.options:DeepSpeedOptions",
    "deepspeed-ipex": "xpubench.distributed.options:DeepSpeedIpexOptions",
    "openvino": "xpubench.runtimes.openvino.options:OptimumOptions",
    "openvino-genai": "xpubench.runtimes.openvino.options:GenAiOptions",
    "openvino-base": "xpubench.runtimes.openvino.options:OpenVinoBaseOptions",
    "llama-cpp": "xpubench.runtimes.llama_cpp.options:LlamaCppOptions",
    "fake": "xpubench.runtimes.fake.options:FakeOptions",
    "faulty": "xpubench.runtimes.fake.options:FaultyOptions",
}
# Commands that a room adds: the module, and its line in `xpubench --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "export": ("xpubench.runtimes.openvino.command", "convert a checkpoint to an OpenVINO IR"),
}
DEFAULT = next(iter(RUNTIMES))
OPTIONS: dict[str, type[RuntimeOptions]] = {name: resolve_name(path) for name, path in RUNTIMES.items()}

if TYPE_CHECKING:
    Options = RuntimeOptions
    Description = RuntimeDescription
else:
    # Tagged unions, by which msgspec reads the options and descriptions of each runtime as their own class.
    Options = reduce(or_, OPTIONS.values())
    Description = reduce(or_, dict.fromkeys(one.description for one in OPTIONS.values()))


def options_class(name: str) -> type[RuntimeOptions]:
    """The class of a runtime's options; UserError with the nearest names when no runtime has that name."""
    if name not in OPTIONS:
        raise unknown("runtime", name, listed())
    return OPTIONS[name]


def loader(name: str) -> "type[Loader]":
    """The class that loads models for a runtime; imports its stack. UserError as for `options_class`."""
    return cast("type[Loader]", resolve_name(options_class(name).loader))


def listed() -> list[str]:
    """The names of the runtimes that people can choose."""
    return [name for name, options in OPTIONS.items() if options.listed]


def with_one_graph(device: str) -> list[str]:
    """The names of the runtimes that people can choose and that run a step as one graph on such a device."""
    return [name for name in listed() if device in OPTIONS[name].one_graph_on]


def sharded(name: str) -> str:
    """The runtime that shares the model of the runtime `name` among ranks; UserError where none does."""
    for other, options in OPTIONS.items():
        if options.shards == name:
            return other
    raise UserError(f"{name} does not run over ranks; leave out --runtime")


def choosing_flag(name: str) -> str:
    """What chooses the runtime `name` in a command line, with a blank before it: nothing for the default, and
    the runtime that another one shares among ranks for that one."""
    chosen = OPTIONS[name].shards or name
    return "" if chosen == DEFAULT else f" --runtime {chosen}"


def packages() -> list[str]:
    """The packages whose versions can change the figures of some runtime."""
    return list(dict.fromkeys(package for options in OPTIONS.values() for package in options.packages))


def diagnoses() -> "list[Diagnosis]":
    """The modules that find what each stack lacks on a machine; the runtimes of one stack share theirs."""
    names = dict.fromkeys(options.diagnosis for options in OPTIONS.values() if options.diagnosis)
    return [cast("Diagnosis", import_module(name)) for name in names]


def add_flags(parser: argparse.ArgumentParser, *, ranks: bool) -> None:
    """Adds the flags of all runtimes to a parser; with `ranks` also those of the runtimes that run over
    ranks."""
    added: dict[str, Flag] = {}
    for options in OPTIONS.values():
        if ranks or options.shards is None:
            options.add_flags(parser, added)


def options_from(
    args: argparse.Namespace, name: str, device: str, also: Iterable[str] = ()
) -> RuntimeOptions:
    """The options of the runtime `name` that the flags ask for on a device.

    UserError where they contradict each other, and for a flag that neither this runtime reads nor one of
    those in `also`, which run in turns with it.
    """
    chosen = options_class(name)
    read = {one.name for runtime in (name, *also) for one in options_class(runtime).flags}
    for other, options in OPTIONS.items():
        for one in options.flags:
            value = getattr(args, one.dest, None)
            if one.name not in read and was_given(value):
                raise UserError(
                    f"{one.name} has no effect on --runtime {name}; leave it out, or choose --runtime {other}"
                )
    return chosen.from_args(args, device)
