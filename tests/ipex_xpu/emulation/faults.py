"""Faults of an emulated GPU's operators, each of which `XPU_EMULATION_FAULT` turns on by its name."""

import os
from collections.abc import Callable
from typing import Any

import torch

FAULT_VARIABLE = "XPU_EMULATION_FAULT"

Fault = Callable[[str, tuple[Any, ...], Any], Any]


def linear_float16_zero(name: str, args: tuple[Any, ...], result: Any) -> Any:
    """https://github.com/intel/torch-xpu-ops/issues/5220"""
    return torch.zeros_like(result) if name == "linear" and result.dtype is torch.float16 else result


def attention_of_two_sequences(name: str, args: tuple[Any, ...], result: Any) -> Any:
    """Garbage at one shape: the output of two sequences with one new token each is in another order."""
    if name == "scaled_dot_product_attention" and (args[0].shape[0], args[0].shape[2]) == (2, 1):
        return result.flip(0)
    return result


FAULTS: dict[str, Fault] = {
    "linear-float16-zero": linear_float16_zero,
    "attention-two-sequences": attention_of_two_sequences,
}


def planted() -> Fault | None:
    """The fault that the variable names; KeyError for an unknown name, None without the variable."""
    name = os.environ.get(FAULT_VARIABLE)
    return FAULTS[name] if name else None
