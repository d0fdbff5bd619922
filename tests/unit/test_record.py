"""Records survive being written and read, and are whole or not there."""

import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine, files_of_at_most
from xpubench.environment import Environment
from xpubench.errors import UserError
from xpubench.record import READERS, SCHEMA_VERSION, Failure, Record, decode, encode, read_record
from xpubench.results import ResultsDirectory
from xpubench.spec import Protocol, RunSpec, Subject, Workload

FIXTURES = Path(__file__).parent.parent / "fixtures" / "records"
SPEC = RunSpec(
    subject=Subject(model="../<b>m</b>", device="cpu", dtype="float32"),
    workload=Workload(input_tokens=8, new_tokens=4),
    protocol=Protocol(),
)
RECORD = Record(
    id=SPEC.id,
    created="2026-11-21T00:00:00Z",
    spec=SPEC,
    environment=Environment(python="3.11"),
    status="oom",
    failure=Failure(failure_class="oom", message="out of memory"),
)


def test_a_record_reads_back_equal() -> None:
    assert decode(encode(RECORD)) == RECORD


def test_the_failure_is_spelled_as_designed() -> None:
    data = json.loads(encode(RECORD))
    assert data["failure"] == {"class": "oom", "message": "out of memory", "log_tail": ""}
    assert data["schema_version"] == 2


def test_the_first_records_which_did_not_name_their_kind_still_read() -> None:
    data = json.loads((FIXTURES / "1-latency.json").read_text())
    whole = decode(json.dumps(data))
    del data["spec"]["kind"]
    assert decode(json.dumps(data)) == whole


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.json")), ids=lambda path: path.stem)
def test_records_that_earlier_versions_wrote_still_read_and_keep_their_ids(path: Path) -> None:
    record = read_record(path)
    assert record.status == "ok"
    assert record.spec.id == record.id
    assert record.summary or record.accuracy
    assert decode(encode(record)) == record


def test_each_schema_version_has_a_fixture() -> None:
    assert {int(path.name.partition("-")[0]) for path in FIXTURES.glob("*.json")} == set(READERS)
    assert max(READERS) == SCHEMA_VERSION


def test_the_report_shows_records_of_each_version(xpubench: CommandLine) -> None:
    found = json.loads(xpubench("report", FIXTURES, "--format", "json").out)
    assert len(found["runs"]) == len(list(FIXTURES.glob("*.json")))
    assert found["left_out"] == []


def test_the_file_is_named_by_the_id_and_nothing_else_is_left(tmp_path: Path) -> None:
    results = ResultsDirectory(tmp_path / "a" / "b")
    path = results.write(RECORD)
    assert path == tmp_path / "a" / "b" / f"{RECORD.id}.json"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read_record(path) == RECORD


def test_a_failed_write_leaves_the_old_record(tmp_path: Path) -> None:
    results = ResultsDirectory(tmp_path)
    path = results.write(RECORD)
    before = path.read_bytes()

    with files_of_at_most(10), pytest.raises(UserError, match="File too large"):
        results.write_file(path.name, b"{" + b" " * 20 + b"}")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "schema_version None"),
        ('{"schema_version": 99}', "99"),
        ('{"schema_version": 1}', "whole"),
    ],
)
def test_what_is_no_record_says_why(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_record(path)


def test_a_results_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--results-dir"):
        ResultsDirectory(tmp_path / "file")
