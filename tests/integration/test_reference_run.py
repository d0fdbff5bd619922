"""`xpubench reference`: the float32 run that a report holds others against."""

from pathlib import Path

import pytest

from tests.conftest import CommandLine
from xpubench.accuracy.tasks import SMOKE_FILE

pytest.importorskip("lm_eval")


def test_a_reference_is_a_float32_run_of_the_whole_task(xpubench: CommandLine, tmp_path: Path) -> None:
    passages = tmp_path / "passages.jsonl"
    passages.write_text("".join(SMOKE_FILE.read_text().splitlines(keepends=True)[:4]))
    flags = ("--device", "cpu", "--acc-data", passages, "--results-dir", tmp_path / "results", "--json")
    done = xpubench("reference", "-m", "smollm2-135m", *flags)
    [record] = done.records
    subject = record["spec"]["subject"]
    assert (done.code, subject["dtype"], subject["options"]["runtime"]) == (0, "float32", "pytorch")
    assert (record["accuracy"]["task"], record["accuracy"]["n"]) == ("lambada_standard", 4)
    assert [path.name for path in (tmp_path / "results").glob("*.json")] == [f"{record['id']}.json"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dtype", "bfloat16"], "leave out --dtype"),
        (["--ipex"], "leave out --dtype and --runtime"),
        (["--acc-iter", "5"], "leave out --acc-iter"),
        (["--woq"], "leave out --woq"),
    ],
)
def test_what_would_be_no_reference_is_refused(xpubench: CommandLine, flags: list[str], words: str) -> None:
    done = xpubench("reference", "-m", "smollm2-135m", *flags)
    assert (done.code, words in done.error_line) == (2, True)
