"""List the models of the catalog: their sizes and what they were validated for."""

import argparse
import json
from typing import Any

from xpubench.catalog import CatalogModel, models, needing_flags
from xpubench.catalog.architecture import Architecture
from xpubench.cli.tables import print_table
from xpubench.report.text import NONE

COLUMNS = (
    *("model", "family", "parameters", "layers", "KV, kB/token", "positions"),
    *("FP16", "INT4", "platforms"),
)
SAME_FIELDS = (
    *("id", "family", "status", "fp16", "int4", "platforms", "listed", "ranks", "note", "needed_flags"),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the list."""
    rows = [_row(one) for one in models()]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    print_table(COLUMNS, map(_texts, rows))
    print("KV: keys and values of one token in 16 bits. FP16, INT4: validated by the guide for Intel GPUs.")
    for row in rows:
        if row["note"]:
            print(f"{row['id']}: {row['note']}.")
    for flag, names in needing_flags().items():
        print(f"The hub's files need {flag}: {', '.join(names)}.")
    return 0


def _row(one: CatalogModel) -> dict[str, Any]:
    architecture = Architecture.from_config(one.config())
    return {name: getattr(one, name) for name in SAME_FIELDS} | {
        "parameters": architecture.parameter_count,
        "num_layers": architecture.num_layers,
        "kv_bytes_per_token_16bit": 2 * architecture.kv_values_per_token,
        "max_positions": architecture.max_positions,
    }


def _texts(row: dict[str, Any]) -> list[str]:
    validated = [row["status"], ""]
    if row["status"] == "validated":
        validated = ["yes" if row[mode] else NONE for mode in ("fp16", "int4")]
    return [
        *(row["id"], row["family"], f"{row['parameters'] / 1e9:.2f} B", str(row["num_layers"])),
        f"{row['kv_bytes_per_token_16bit'] / 1e3:.0f}",
        "no limit" if row["max_positions"] is None else str(row["max_positions"]),
        *(*validated, ", ".join(row["platforms"])),
    ]
