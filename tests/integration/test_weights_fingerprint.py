"""What a checkpoint's fingerprint tells apart, and what it cannot."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from xpubench.errors import RunFailure
from xpubench.weights.fingerprint import SAMPLE_BYTES, SAMPLES, Fingerprint, fingerprint

SIZE = 1 << 20


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama", "vocab_size": 8}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(bytes(SIZE))
    return directory


def change_weights(directory: Path, place: int = 0, name: str = "model.safetensors") -> None:
    content = bytearray((directory / name).read_bytes())
    content[place] ^= 1
    (directory / name).write_bytes(content)


def parts(one: Fingerprint, other: Fingerprint) -> set[str]:
    """The names of the fields in which two differ, but for the times."""
    fields, theirs = msgspec.structs.asdict(one), msgspec.structs.asdict(other)
    return {name for name in fields if fields[name] != theirs[name]} - {"weights_modified_ns"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda at: (at / "config.json").write_text('{"vocab_size": 8,\n"model_type": "llama"}'), set()),
        (lambda at: (at / "config.json").write_text('{"model_type": "llama"}'), {"config"}),
        (lambda at: (at / "tokenizer.json").write_text("[]"), {"others"}),
        (lambda at: (at / "tokenizer.json").rename(at / "other.json"), {"others"}),
        (lambda at: (at / "model.bin").write_bytes(b"x"), {"others"}),
        (lambda at: (at / "subdirectory").mkdir(), set()),
        (change_weights, {"weights"}),
        (lambda at: change_weights(at, SIZE // SAMPLES * (SAMPLES - 1)), {"weights"}),
        (lambda at: os.truncate(at / "model.safetensors", SIZE - 1), {"weights"}),
        # Documented: between the samples a change goes unseen, but for the time.
        (lambda at: change_weights(at, SAMPLE_BYTES), set()),
    ],
)
def test_each_part_tells_its_own_change(
    checkpoint: Path, change: Callable[[Path], object], expected: set[str]
) -> None:
    before = fingerprint(checkpoint)
    change(checkpoint)
    assert parts(before, fingerprint(checkpoint)) == expected


def test_a_copy_has_other_times_and_the_same_digests(checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    os.utime(copy / "model.safetensors", (1_577_836_800, 1_577_836_800))
    one, other = fingerprint(checkpoint), fingerprint(copy)
    assert parts(one, other) == set()
    assert other.weights_modified_ns == (1_577_836_800 * 10**9,)
    assert one != other


def test_the_shards_of_an_index_are_the_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    with pytest.raises(RunFailure, match="lacks"):
        fingerprint(checkpoint)
    for name in ("a.safetensors", "b.safetensors"):
        (checkpoint / name).write_bytes(bytes(100))
    before = fingerprint(checkpoint)
    assert len(before.weights_modified_ns) == 2
    change_weights(checkpoint, name="b.safetensors")
    assert parts(before, fingerprint(checkpoint)) == {"weights"}


def test_pickled_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    before = fingerprint(checkpoint)
    change_weights(checkpoint, name="pytorch_model.bin")
    assert parts(before, fingerprint(checkpoint)) == {"weights"}


def test_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(100))
    before = fingerprint(tmp_path)
    change_weights(tmp_path, name="adapter_model.safetensors")
    assert parts(before, fingerprint(tmp_path)) == {"weights"}
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 32}')
    assert parts(before, fingerprint(tmp_path)) == {"config", "weights"}
