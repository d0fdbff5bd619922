"""`xpubench doctor --operators`: whether the operators of a device are right, and how fast they are."""

import argparse
from typing import TYPE_CHECKING

import msgspec

from xpubench.catalog import config_of, identify_device
from xpubench.catalog.architecture import Architecture
from xpubench.cli.tables import print_table
from xpubench.report.text import number
from xpubench.runtimes.options import default_dtype
from xpubench.spec import Quantization

if TYPE_CHECKING:
    from xpubench.record import OperatorResult

FAILED = 1
BAD = ("wrong", "failed")


def run(args: argparse.Namespace) -> int:
    """Prints the table of operators; 1 where one is wrong or failed. UserError for a device that is not here
    and a model whose sizes are not known."""
    architecture = None if args.model_id is None else Architecture.from_config(config_of(args.model_id))

    from xpubench.measure.device import TorchDevice, available_devices
    from xpubench.measure.operator_cases import sizes_of
    from xpubench.measure.operators import check_operators

    kind = args.device or available_devices()[0]
    device, dtype = TorchDevice(kind), args.dtype or default_dtype(kind)
    facts = device.facts()
    group_size = Quantization().group_size
    results = list(check_operators(kind, dtype, sizes_of(architecture), int4_group_size=group_size))
    ceiling = device.bandwidth(dtype)
    sheet = identify_device(facts.name, facts.total_memory_bytes)
    on_sheet = None if sheet is None or dtype == "float32" else sheet.peak_tflop_per_s
    peak = device.matrix_peak(dtype)
    if args.json:
        found = {
            "device": facts,
            "dtype": dtype,
            "model": args.model_id,
            "bandwidth": ceiling,
            "matrix_peak": peak,
            "peak_tflop_per_s": on_sheet,
            "operators": results,
        }
        print(msgspec.json.encode(found).decode())
    else:
        _show(results)
        speed = f"{ceiling.ceiling_gb_per_s:.1f} GB/s by copies, sums and products of large buffers"
        tops = (
            [f"{number(peak.highest_tflop_per_s, 3)} TFLOP/s by products of large matrices"] if peak else []
        )
        tops += [f"{on_sheet:,.0f} TFLOP/s on the data sheet"] if on_sheet else []
        print(f"{facts.name}, {dtype}. Ceilings: {'; '.join([speed, *(tops or ['no TFLOP/s known'])])}.")
        print("GB/s count inputs and output once; what fits into a cache is read faster than memory.")
        wrong = [one for one in results if one.state in BAD]
        print(f"{len(wrong)} of {len(results)} wrong or failed" if wrong else "no operator is wrong")
        for one in wrong:
            print(f"{one.state}: {one.problem}")
    return FAILED if any(one.state in BAD for one in results) else 0


def _show(results: "list[OperatorResult]") -> None:
    """One table of what ran, and a line for each operator that the device refused, with its first reason, and
    for each one that was left out."""
    columns = ("operator", "shape", "result", "rows", "error", "limit", "GB/s", "TFLOP/s")
    rows = [
        (
            *(one.operator, one.shape, one.state, f"{one.rows:,}"),
            "-" if one.error is None else f"{one.error:.1e}",
            *(f"{one.limit:.1e}", number(one.gb_per_s, 1), number(one.tflop_per_s, 3)),
        )
        for one in results
        if one.state not in ("refused", "left out")
    ]
    print_table(columns, rows, left=3)
    refused: dict[str, list[OperatorResult]] = {}
    for one in results:
        if one.state == "refused":
            refused.setdefault(one.operator, []).append(one)
    for name, found in refused.items():
        counts = ", ".join(dict.fromkeys(f"{one.rows:,}" for one in found))
        print(f"not on this device: {name} at {counts} rows ({(found[0].message or '')[:80]})")
    for one in results:
        if one.state == "left out":
            print(f"left out: {one.problem}")
