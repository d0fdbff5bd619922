"""Output that cannot be written is one line and an exit code that is no verdict."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests import records
from tests.conftest import ROOT, CommandLine

HELP, VERSION, MODELS, COMPARE = ["--help"], ["--version"], ["models"], ["compare", "A", "A"]
REPORT = ["report", "A", "--format", "md"]
HISTORY = ["history", "A", "--model", records.subject().model, "--format", "md"]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        records.round_of(tmp_path / "A", number)
    return tmp_path


def shell(
    recorded: Path, arguments: list[str], redirection: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """A command line in a shell, with its standard output redirected."""
    return subprocess.run(
        ["bash", "-c", f'"$0" -m xpubench "$@" {redirection}', sys.executable, *arguments],
        cwd=recorded,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
    )


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    """The error, which is all that standard error holds."""
    assert done.returncode not in (0, 1), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("arguments", [HELP, VERSION, MODELS, COMPARE, REPORT], ids=" ".join)
def test_a_full_disk(recorded: Path, arguments: list[str]) -> None:
    done = shell(recorded, arguments, "> /dev/full")
    assert (one_line(done), done.returncode) == ("error: cannot write the output: No space left on device", 4)


@pytest.mark.parametrize("arguments", [MODELS, COMPARE, REPORT], ids=" ".join)
def test_a_closed_output(recorded: Path, arguments: list[str]) -> None:
    assert "standard output is closed" in one_line(shell(recorded, arguments, ">&-"))


@pytest.mark.parametrize("arguments", [COMPARE, REPORT], ids=" ".join)
def test_an_output_in_ascii(recorded: Path, arguments: list[str]) -> None:
    assert "PYTHONIOENCODING=utf-8" in one_line(shell(recorded, arguments, "", PYTHONIOENCODING="ascii"))


@pytest.mark.parametrize("arguments", [MODELS, COMPARE, REPORT], ids=" ".join)
def test_a_reader_that_is_gone(recorded: Path, arguments: list[str]) -> None:
    done = shell(recorded, arguments, "| true; exit ${PIPESTATUS[0]}", PYTHONUNBUFFERED="1")
    assert done.returncode in (0, 4), done.stderr
    assert done.stderr == ""


def test_a_name_that_is_no_utf_8(recorded: Path) -> None:
    done = shell(recorded, ["plan", "-m"], "$'\\xff'")
    assert "is not valid UTF-8 text" in one_line(done)


@pytest.mark.parametrize("command", ["plan", "generate"])
def test_a_name_that_is_too_long(xpubench: CommandLine, tmp_path: Path, command: str) -> None:
    done = xpubench(
        command, "-m", "a" * 5000, *(["--results-dir", tmp_path] if command == "generate" else [])
    )
    assert (done.code, "File name too long" in done.error_line) == (2, True)
    assert len(done.error_line) < 200


@pytest.mark.parametrize(
    "command", [REPORT, ["history", "A", "--model", records.subject().model, "--format", "md"]]
)
def test_a_link_is_followed(recorded: Path, xpubench: CommandLine, command: list[str]) -> None:
    target, link = recorded / "real.md", recorded / "link.md"
    link.symlink_to(target)
    arguments = [str(recorded / one) if one == "A" else one for one in command]
    for _ in range(2):
        assert xpubench(*arguments, "-o", link).code == 0
        assert link.is_symlink()
        assert target.read_text().startswith("#")


def test_what_is_no_regular_file_is_written_to(recorded: Path, xpubench: CommandLine) -> None:
    pipe = recorded / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    assert xpubench("report", recorded / "A", "--format", "md", "-o", pipe).code == 0
    out, _ = reader.communicate(timeout=60)
    assert out.startswith(b"# Validation report")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays(recorded: Path) -> None:
    """A link to /dev/full, so that a fault costs no device."""
    device = recorded / "device"
    device.symlink_to("/dev/full")
    line = one_line(shell(recorded, [*REPORT, "-o", "device"], ""))
    assert "cannot write device: No space left on device" in line
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert device.is_symlink()


LONG = "a" * 5000
# A process without these capabilities may enter no directory whose mode forbids it, even as root.
WITHOUT = "-dac_override,-dac_read_search"
AS_OWNER = ("setpriv", f"--bounding-set={WITHOUT}", f"--inh-caps={WITHOUT}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "A", LONG],
        ["compare", LONG, "A"],
        ["compare", f"{LONG}/a.json", "A"],
        ["compare", "A", "A", "--history", LONG],
        ["compare", "--live", "-m gpt2", "-m opt", "--results-dir", LONG],
        ["history", LONG, "--model", "gpt2"],
        ["report", LONG, "-o", "report.html"],
        ["report", LONG, "--format", "md"],
        ["report", "--diff", "A", LONG, "--format", "md"],
        ["report", "A", "--format", "md", "-o", LONG],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_path_that_is_too_long(recorded: Path, xpubench: CommandLine, arguments: list[str]) -> None:
    """Not the exit code 1 of a traceback, which is that of a slower run."""
    done = xpubench(*(str(recorded / one) if one in ("A", LONG) else one for one in arguments))
    assert (done.code, "File name too long" in done.error_line) == (2, True)
    assert len(done.error_line) < 400


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "closed/m/a.json", "closed/m/b.json"],
        ["compare", "A", "closed/m"],
        ["compare", "A", "A", "--history", "closed/m"],
        ["report", "closed/m", "--format", "md"],
        ["report", "--diff", "A", "closed/m", "--format", "md"],
        ["report", "A", "--format", "md", "-o", "closed/m/report.md"],
        ["history", "closed/m", "--model", "gpt2"],
    ],
    ids=" ".join,
)
def test_a_directory_that_may_not_be_entered(recorded: Path, arguments: list[str]) -> None:
    (recorded / "closed" / "m").mkdir(parents=True)
    (recorded / "closed").chmod(0)
    try:
        done = subprocess.run(
            [*(AS_OWNER if os.geteuid() == 0 else ()), sys.executable, "-m", "xpubench", *arguments],
            cwd=recorded,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    finally:
        (recorded / "closed").chmod(0o755)
    assert (done.returncode, "Permission denied" in one_line(done)) == (2, True)


def test_answers_beside_a_record_with_a_long_name(recorded: Path, xpubench: CommandLine) -> None:
    """The name of the file with the answers, which is longer than the record's, is too long."""
    path = records.write(recorded, records.latency_record(records.subject()), "b" * 250)
    done = xpubench("compare", path, path)
    assert (done.code, done.err, "File name too long" in done.out) == (3, "", True)


def test_a_file_of_another_kind_of_error_is_named(
    recorded: Path, xpubench: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the place in which the system refuses a file."""

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "A/some file")

    monkeypatch.setattr("xpubench.cli.compare.compare_paths", refused)
    done = xpubench("compare", recorded / "A", recorded / "A")
    assert (done.code, done.error_line) == (2, "error: cannot use A/some file: Input/output error")
