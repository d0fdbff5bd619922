"""Compare runs: exit code 0 same or faster, 1 slower or less accurate, 2 not comparable."""

import argparse
from pathlib import Path

from xpubench.compare.runs import Comparisons, Limits, RunComparison, compare_paths
from xpubench.report.text import mean_kl_text

FORMATS = ("table", "md", "json", "junit")
COLUMNS = ("run", "verdict", "first token, ratio", "next token, ratio", "memory, ratio", "accuracy, points")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    what = "a record, a directory of records, or a file with several"
    parser.add_argument("base", type=Path, metavar="BASE", help=f"to hold against: {what}")
    parser.add_argument("new", type=Path, metavar="NEW", help="the runs in question, in the same form")
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument("--json", action="store_const", dest="format", const="json", help="--format json")
    for flag, limit, what in (
        ("--latency-limit", Limits().latency, "smaller changes are the same"),
        ("--memory-limit", Limits().memory, "a larger growth of the peak counts as slower"),
    ):
        note = f"{what} (default: {100 * limit:g})"
        parser.add_argument(flag, type=_percent, default=limit, metavar="PERCENT", help=note)


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text}")
    return value / 100


def run(args: argparse.Namespace) -> int:
    """Prints the comparison; its verdict is the exit code."""
    limits = Limits(latency=args.latency_limit, memory=args.memory_limit)
    found = compare_paths(args.base, args.new, limits)
    if args.format == "json":
        from xpubench.report.plain import as_json

        print(as_json(found).decode(), end="")
    elif args.format == "junit":
        print(_junit(found))
    elif args.format == "md":
        print(_markdown(found))
    else:
        _print(found)
    return found.exit_code


def _cells(run: RunComparison) -> list[str]:
    points = run.accuracy.difference_points if run.accuracy else None
    return [
        run.title,
        run.verdict,
        run.first_token.text if run.first_token else "–",
        run.next_token.text if run.next_token else "–",
        "–" if run.memory is None else f"{run.memory:.3f}",
        "–" if points is None else f"{points:+.2f}",
    ]


def _notes(found: Comparisons) -> list[str]:
    """What the table does not say."""
    lines = [f"{run.verdict}: {run.reason}" for run in found.runs]
    if len(found.runs) > 1:
        lines = [f"{run.title}: {run.reason}" for run in found.runs if run.verdict != "same"]
    for run in found.runs:
        if run.differs:
            lines.append(f"differs in {'; '.join(run.differs)}" + _of(run, found))
        if run.top1_agreement is not None:
            lines.append(
                f"divergence of the new run from its reference: top-1 agreement {run.top1_agreement:.1%}, "
                + mean_kl_text(run.mean_kl)
                + _of(run, found)
            )
    lines += [f"only in the base: {title}" for title in found.only_base]
    lines += [f"only in the new: {title}" for title in found.only_new]
    return lines + [f"left out: {one}" for one in found.left_out]


def _of(run: RunComparison, found: Comparisons) -> str:
    return f" ({run.title})" if len(found.runs) > 1 else ""


def _print(found: Comparisons) -> None:
    from xpubench.cli.tables import plain_console, plain_table

    console = plain_console()
    accuracies = [run.accuracy for run in found.runs if run.accuracy and run.accuracy.task]
    if accuracies:
        table = plain_table("task", "base", "new", "difference", "gained", "lost", "McNemar's p", "items")
        for one in accuracies:
            table.add_row(
                one.task or "",
                f"{one.base_acc:.2%}",
                f"{one.new_acc:.2%}",
                f"{one.difference_points:+.2f} points",
                str(one.gained),
                str(one.lost),
                f"{one.p_value:.3g}",
                str(one.n),
            )
        console.print(table)
    latencies = [run for run in found.runs if run.first_token]
    if latencies:
        table = plain_table(*COLUMNS[:-1])
        for run in latencies:
            table.add_row(*_cells(run)[:-1])
        console.print(table)
    for line in _notes(found):
        console.print(line)
    if not found.runs:
        console.print("not comparable: no run is in both")


def _markdown(found: Comparisons) -> str:
    def row(cells: list[str] | tuple[str, ...]) -> str:
        return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"

    lines = [row(COLUMNS), "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    lines += [row(_cells(run)) for run in found.runs]
    return "\n".join([*lines, "", *(f"- {_escaped(note)}" for note in _notes(found))])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def _junit(found: Comparisons) -> str:
    """One test case a run: slower and less accurate ones fail, those that cannot be compared are errors,
    and those that the new set lacks are skipped."""
    from xml.etree.ElementTree import Element, SubElement, indent, tostring

    suite = Element("testsuite", name="xpubench compare", tests=str(len(found.runs) + len(found.only_base)))
    for run in found.runs:
        case = SubElement(suite, "testcase", classname="xpubench", name=run.title)
        if run.verdict in ("slower", "regression"):
            SubElement(case, "failure", message=run.reason, type=run.verdict)
        elif run.verdict == "not comparable":
            SubElement(case, "error", message=run.reason, type="not-comparable")
        SubElement(case, "system-out").text = "; ".join([run.reason, *run.differs])
    for title in found.only_base:
        case = SubElement(suite, "testcase", classname="xpubench", name=title)
        SubElement(case, "skipped", message="only in the base")
    for kind, counted in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(counted, str(len(suite.findall(f"testcase/{kind}"))))
    indent(suite)
    return tostring(suite, encoding="unicode")
