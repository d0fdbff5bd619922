"""The reports and comparisons for programs: JSON, CSV and JUnit."""

import csv
import io
import re
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import msgspec

from xpubench.compare.runs import BAD, Comparisons
from xpubench.report.comparison import beside, nothing_compared, power
from xpubench.report.tables import DataTable

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(value: Any) -> bytes:
    """A report or a comparison as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def as_csv(table: DataTable) -> bytes:
    """A table with its hidden columns; a figure with its interval becomes three."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names: list[str] = []
    for name, column in table.columns.items():
        names += [name, f"{name}_low", f"{name}_high"] if column.kind == "interval" else [name]
    writer.writerow(names)
    for row in table.cells():
        fields: list[Any] = []
        for column, cell in zip(table.columns.values(), row, strict=True):
            fields += [*(cell or ()), None, None, None][:3] if column.kind == "interval" else [_safe(cell)]
        writer.writerow(fields)
    return out.getvalue().encode()


def as_junit(found: Comparisons) -> bytes:
    """One test case for each run: slower, less accurate, newly failing and missing ones fail, those that
    cannot be compared are errors, and those that are inconclusive, fail in both, or that the new set may
    lack, are skipped. Each one's output says what an inconclusive run would show and from where it would be
    decided, what else changed or differs, all facts of the environments and the warnings of both sides. Where
    nothing was compared, one more case says so as an error."""
    suite = Element("testsuite", name="xpubench compare")
    for run in found.runs:
        case = SubElement(suite, "testcase", classname="xpubench", name=_xml(run.title))
        if run.verdict in BAD:
            SubElement(case, "failure", message=_xml(run.reason), type=run.verdict.replace(" ", "-"))
        elif run.verdict == "not comparable":
            SubElement(case, "error", message=_xml(run.reason), type="not-comparable")
        elif run.verdict in ("inconclusive", "failing in both"):
            SubElement(case, "skipped", message=_xml(f"{run.verdict}: {run.reason}"))
        SubElement(case, "system-out").text = _xml("\n".join([run.reason, *power(run), *beside(run, None)]))
    for title in found.only_base:
        case = SubElement(suite, "testcase", classname="xpubench", name=_xml(title))
        SubElement(case, "skipped", message="only in the base")
    if reason := nothing_compared(found):
        case = SubElement(suite, "testcase", classname="xpubench", name="a run in both sets")
        SubElement(case, "error", message=reason, type="not-comparable")
    suite.set("tests", str(len(suite)))
    for kind, counted in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(counted, str(len(suite.findall(f"testcase/{kind}"))))
    indent(suite)
    return tostring(suite, encoding="unicode").encode() + b"\n"


def _xml(text: str) -> str:
    """A text without the characters that XML 1.0 has not."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _safe(cell: Any) -> Any:
    # A spreadsheet takes a text that begins with one of these for a formula and runs it.
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
