"""Where the operators are collected, and how they become operators of torch."""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])
MODULES = ("norms", "rotary", "gemm", "attention", "beam_search", "int4")

_functions: dict[str, tuple[str, Callable[..., Any]]] = {}
_library: list[Any] = []


def operator(schema: str) -> Callable[[Function], Function]:
    """Collects a function as the operator with this schema."""

    def collect(function: Function) -> Function:
        _functions[schema.partition("(")[0]] = (schema, function)
        return function

    return collect


def register() -> None:
    """Makes every collected function an operator of `torch.ops.torch_ipex`."""
    for module in MODULES:
        importlib.import_module(f"tests.ipex_xpu.emulation.operators.{module}")
    library = torch.library.Library("torch_ipex", "FRAGMENT")
    for name, (schema, function) in _functions.items():
        library.define(schema)
        library.impl(name, function, "CompositeExplicitAutograd")
    _library.append(library)  # torch forgets the operators of a library that is collected


def check(condition: bool, message: str) -> None:
    """RuntimeError with the message of the kernel's TORCH_CHECK where its condition does not hold."""
    if not condition:
        raise RuntimeError(message)
