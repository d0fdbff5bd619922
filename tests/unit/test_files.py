"""Files and directories are written whole or not at all."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from xpubench.files import cache_directory, directory_aside, expanded, files_aside, write_aside


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def make(target: Path, text: str, *, replace: bool) -> None:
    with directory_aside(target, replace=replace) as aside:
        (aside / "file").write_text(text)


@pytest.mark.usefixtures("umask")
def test_modes_follow_the_umask(tmp_path: Path) -> None:
    write_aside(tmp_path / "file", b"x")
    make(tmp_path / "directory", "x", replace=False)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"file": 0o640, "directory": 0o750}


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for data in (b"long content", b"x"):
        write_aside(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_aside(tmp_path / "taken", b"x")
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize(("replace", "expected"), [(True, "new"), (False, "old")])
def test_a_directory_that_is_there_is_replaced_or_kept(tmp_path: Path, replace: bool, expected: str) -> None:
    target = tmp_path / "parent" / "target"
    make(target, "old", replace=replace)
    make(target, "new", replace=replace)
    assert (target / "file").read_text() == expected
    assert os.listdir(target.parent) == ["target"]


def test_an_error_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    make(tmp_path / "target", "old", replace=True)

    def interrupted() -> None:
        with directory_aside(tmp_path / "target", replace=True) as aside:
            (aside / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "target" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """But neither what a living process is writing nor what belongs to another target."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom xpubench.files import directory_aside\n"
        "with directory_aside(Path(sys.argv[1]), replace=True) as aside:\n"
        "    (aside / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    for name in ("target", "other"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
    assert len(os.listdir(tmp_path)) == 2
    with directory_aside(tmp_path / "target", replace=True) as aside:
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".target")] == [aside]
        make(tmp_path / "target", "new", replace=True)
        assert aside.is_dir()
        (aside / "file").write_text("last")
    assert (tmp_path / "target" / "file").read_text() == "last"
    (other,) = [path for path in tmp_path.iterdir() if path.name != "target"]
    assert other.name.startswith(".other.")


def test_a_file_in_the_place_of_a_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("a file")
    with pytest.raises(NotADirectoryError):
        make(tmp_path / "target", "new", replace=True)
    assert (tmp_path / "target").read_text() == "a file"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("name", ["n" * 255, "\N{GRINNING FACE}" * 63], ids=["ascii", "four bytes each"])
def test_the_longest_names(tmp_path: Path, name: str) -> None:
    write_aside(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]


def test_files_move_among_others_all_or_none(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with files_aside(tmp_path) as aside:
        (aside / "new").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mine": "mine", "new": "new"}

    def taken() -> None:
        with files_aside(tmp_path) as aside:
            (aside / "another").write_text("x")
            (aside / "mine").write_text("theirs")

    with pytest.raises(FileExistsError, match="holds a mine"):
        taken()
    assert sorted(os.listdir(tmp_path)) == ["mine", "new"]
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_tests_use_no_cache_of_the_user() -> None:
    assert not cache_directory().is_relative_to(Path.home())
    assert cache_directory().is_relative_to(tempfile.gettempdir())


def test_a_name_that_begins_with_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without such a home, it stays a name, of which a command says that it is not there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/model") == tmp_path / "model"
    assert expanded("~nobody-of-that-name/model") == Path("~nobody-of-that-name/model")
