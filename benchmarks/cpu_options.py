"""`make bench-cpu-options`: what the options of stock PyTorch on a CPU change, each against stock in a live
comparison, with its tokens and its KL divergence from stock's.

    python -m benchmarks.cpu_options [BLOCKS [DTYPE ...]]
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.live import BLOCKS, compared, printed
from xpubench.measure.host import transparent_huge_pages

MODEL = "smollm2-135m"
DTYPES = ("bfloat16", "float32")
SHAPE = ("--input-tokens", "128", "--max-new-tokens", "32", "--num-iter", "5", "--num-warmup", "1")
COLUMNS = ("option", "next token", "first token", "verdict", "top-1", "mean KL", "tokens of the same prompt")


class Option(NamedTuple):
    """A change of the command line or of the environment, and its name in the table."""

    name: str
    flags: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


OPTIONS = (
    Option("decode without oneDNN", ("--no-onednn-decode",)),
    Option("one thread", variables=("OMP_NUM_THREADS=1",)),
    Option("static cache", ("--use-static-cache",)),
    Option("torch.compile, static cache", ("--use-static-cache", "--torch-compile")),
    Option(
        "torch.compile, static cache, decode without oneDNN",
        ("--use-static-cache", "--torch-compile", "--no-onednn-decode"),
    ),
    Option("THP_MEM_ALLOC_ENABLE=1", variables=("THP_MEM_ALLOC_ENABLE=1",)),
    Option("glibc.malloc.hugetlb=1", variables=("GLIBC_TUNABLES=glibc.malloc.hugetlb=1",)),
)


def run(blocks: int, dtypes: tuple[str, ...]) -> Iterator[Table]:
    """A table for each dtype, with a row for each option: ratios to stock with their 95% intervals."""
    for dtype in dtypes:
        title = f"{dtype}; ratios to stock PyTorch; transparent huge pages: {transparent_huge_pages()}"
        table = Table(*COLUMNS, title=title)
        stock = ("-m", MODEL, "--greedy", "--device", "cpu", "--dtype", dtype, *SHAPE)
        with tempfile.TemporaryDirectory() as directory:
            results = Path(directory) / "stock"
            record = printed("generate", *stock, "--results-dir", str(results), "--json")
            reference = ("--reference", str(results / f"{record['id']}.json"))
            for option in OPTIONS:
                base, place = stock + reference, Path(directory) / option.name
                more = (*base, *option.flags)
                found = compared(base, more, place, new_variables=option.variables, blocks=blocks)
                table.add_row(option.name, *_cells(found))
        yield table


def _cells(found: dict[str, Any]) -> list[str]:
    figures = found["figures"]
    primary = found["primary"] or {}
    agreement, kl = found["top1_agreement"], found["mean_kl"]
    return [
        *(_ratio(primary), _ratio(figures.get("first_token", {})), found["verdict"]),
        "-" if agreement is None else f"{agreement:.1%}",
        "-" if kl is None else f"{kl:.2g}",
        next((one for one in found["beyond"] if one.startswith("other tokens")), "the same"),
    ]


def _ratio(figure: dict[str, Any]) -> str:
    if figure.get("change") is None:
        return "-"
    ends = "" if figure["low"] is None else f" ({figure['low']:.2f} to {figure['high']:.2f})"
    return f"{figure['change']:.2f}{ends}"


if __name__ == "__main__":
    most = int(sys.argv[1]) if len(sys.argv) > 1 else BLOCKS
    for table in run(most, tuple(sys.argv[2:]) or DTYPES):
        Console(width=200).print(table)
