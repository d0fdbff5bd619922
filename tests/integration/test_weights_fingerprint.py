"""What a checkpoint's fingerprint tells apart, and what it cannot."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.records import latency_record, subject
from xpubench.errors import RunFailure
from xpubench.record import WeightsFingerprint
from xpubench.results import ResultsDirectory
from xpubench.run.suite import wanted
from xpubench.spec import Quantization, Subject
from xpubench.weights.fingerprint import (
    SAMPLE_BYTES,
    SAMPLES,
    Fingerprint,
    fingerprint,
    of_directory,
    of_subject,
)

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


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')
    (directory / "adapter_model.safetensors").write_bytes(bytes(100))
    return directory


def is_done(of: Subject, before: WeightsFingerprint | None, directory: Path) -> bool:
    """Whether a suite leaves out a run of a subject that has a record with that fingerprint."""
    results, record = ResultsDirectory(directory / "results"), latency_record(of, fingerprint=before)
    results.write(record)
    return not wanted(results, record.spec, None)


@pytest.mark.parametrize("is_local", [True, False])
def test_a_run_with_an_edited_adapter_is_made_again(
    tiny_llama: Path, adapter: Path, tmp_path: Path, is_local: bool
) -> None:
    of = subject(str(tiny_llama) if is_local else "smollm2-135m", lora=str(adapter))
    before, plain = of_subject(of), of_subject(msgspec.structs.replace(of, lora=None))
    assert before is not None
    assert before.adapter is not None
    assert msgspec.structs.replace(before, adapter=None) == plain
    assert is_done(of, before, tmp_path)
    change_weights(adapter, name="adapter_model.safetensors")
    assert not is_done(of, before, tmp_path)
    assert of_subject(of) != before
    assert is_done(of, of_subject(of), tmp_path)
    (adapter / "adapter_model.safetensors").unlink()
    assert not is_done(of, before, tmp_path)


def test_a_saved_model_has_the_fingerprint_of_what_it_was_made_of(
    xpubench: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    source, saved = tmp_path / "source", tmp_path / "saved"
    shutil.copytree(tiny_llama, source)
    assert xpubench("quantize", source, saved, "--group_size", 32).code == 0
    of = subject(str(source), quantization=Quantization(group_size=32, checkpoint=str(saved)))
    made_of, before = of_directory(source), of_subject(of)
    assert before is not None
    assert (before.config, before.weights) == (made_of.config, made_of.weights)
    change_weights(source, -1)
    assert of_subject(of) == before
    assert is_done(of, before, tmp_path)
    change_weights(saved, -1, "model-00001.safetensors")
    assert not is_done(of, before, tmp_path)
    # One that an earlier version saved does not tell.
    config = json.loads((saved / "config.json").read_text())
    del config["quantization_config"]["checkpoint"]
    (saved / "config.json").write_text(json.dumps(config))
    assert of_subject(of) is None
    # Nor does one that neural-compressor saved.
    config["quantization_config"] = {"quant_method": "rtn", "group_size": 32}
    (saved / "config.json").write_text(json.dumps(config))
    assert of_subject(of) is None


def test_a_calibrated_model_has_the_fingerprint_of_its_source_and_its_own(
    tiny_llama: Path, tmp_path: Path
) -> None:
    saved, made_of = tmp_path / "saved", {"config": "c" * 64, "weights": "w" * 64}
    shutil.copytree(tiny_llama, saved)
    kept = {
        "recipe": {"algorithm": "AWQ", "dataset": "texts.txt"},
        "dataset_sha256": "d" * 64,
        "source": "model",
        "checkpoint": made_of,
        "revision": None,
        "auto_round_version": "0.16.1",
    }
    (saved / "xpubench_recipe.json").write_text(json.dumps(kept))
    of = subject(str(saved))
    before = of_subject(of)
    assert before is not None
    assert {"config": before.config, "weights": before.weights} == made_of
    assert is_done(of, before, tmp_path)
    change_weights(saved, -1)
    assert not is_done(of, before, tmp_path)
    assert is_done(of, of_subject(of), tmp_path)


def test_the_files_of_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(100))
    before = fingerprint(tmp_path)
    change_weights(tmp_path, name="adapter_model.safetensors")
    assert parts(before, fingerprint(tmp_path)) == {"weights"}
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 32}')
    assert parts(before, fingerprint(tmp_path)) == {"config", "weights"}
