"""Names in Markdown: every command writes them so that they are read as they are."""

from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.records import failed, latency_record, subject, write

# By a name, the text of which Markdown makes that name.
NAMES = {
    "my_*model*": r"my\_\*model\*",
    "_a_|b`c`": r"\_a\_\|b\`c\`",
    "[x](y)<b>&amp;": r"\[x\](y)\<b\>\&amp;",
    "a\nb~~c~~": r"a b\~\~c\~\~",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["compare", "report", "diff", "history"])
def test_a_name_is_read_as_it_is(xpubench: CommandLine, tmp_path: Path, command: str, name: str) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, latency_record(subject(name)), "run")
    write(b, latency_record(subject(name), next_ms=30.0), "run")
    write(b, failed(latency_record(subject(name), batch_size=2), "crash", name), "other")
    arguments: dict[str, list[object]] = {
        "compare": ["compare", a, b],
        "report": ["report", b],
        "diff": ["report", "--diff", a, b],
        "history": ["history", a, "--model", name],
    }
    done = xpubench(*arguments[command], "--format", "md")
    assert NAMES[name] in done.out
    assert name not in done.out
