"""Names in Markdown: every command writes them so that they are read as they are."""

from pathlib import Path

import pytest
from msgspec.structs import replace

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


def test_the_name_of_a_device_is_read_as_it_is(xpubench: CommandLine, tmp_path: Path) -> None:
    """In the header of the matrix too, which a bar would give another column."""
    record = latency_record(subject("meta-llama/Llama-2-7b-hf"))
    assert record.environment.device is not None
    device = replace(record.environment.device, name="Arc|<img src=x onerror=alert(1)>")
    write(tmp_path, replace(record, environment=replace(record.environment, device=device)), "run")
    done = xpubench("report", tmp_path, "--format", "md")
    assert "Arc|" not in done.out
    header = next(line for line in done.out.splitlines() if line.startswith("| model |"))
    assert r"Arc\|\<img src=x onerror=alert(1)\>, FP16" in header
