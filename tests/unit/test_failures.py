"""What a record keeps of a log."""

from pathlib import Path

from tests.conftest import CommandLine
from tests.records import failed, latency_record, subject, write
from xpubench.failures import LOG_TAIL_CHARACTERS, LOG_TAIL_LINES, log_tail


def test_the_end_of_a_log_is_kept() -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    lines = log_tail(text).splitlines()
    assert (len(lines), lines[-1]) == (LOG_TAIL_LINES, "line 999")


def test_long_lines_are_cut_at_their_start() -> None:
    tail = log_tail("x" * 10 * LOG_TAIL_CHARACTERS + "the end")
    assert (len(tail), tail[-7:]) == (LOG_TAIL_CHARACTERS, "the end")


def test_a_page_of_records_with_huge_logs_stays_small(xpubench: CommandLine, tmp_path: Path) -> None:
    sizes = []
    for name, log in (("small", "end"), ("huge", "".join(f"{number:07}" for number in range(500_000)))):
        write(tmp_path / name, failed(latency_record(subject()), "crash", "it ended", log))
        assert xpubench("report", tmp_path / name, "-o", tmp_path / f"{name}.html").code == 0
        sizes.append((tmp_path / f"{name}.html").stat().st_size)
    assert sizes[1] - sizes[0] < 2 * LOG_TAIL_CHARACTERS
