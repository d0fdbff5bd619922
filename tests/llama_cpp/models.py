"""GGUF files for tests, made of the embedded model."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize

from tests.conftest import Outcome
from xpubench.weights.embedded import smollm2_gguf


def save_float16(path: Path) -> Path:
    """Writes the embedded model with its matrices dequantized to float16, and all else as it is."""
    reader = GGUFReader(smollm2_gguf())
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = GGUFWriter(path, str(fields.pop("general.architecture").contents()))
    for name, field in fields.items():
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if len(tensor.shape) > 1:
            kind = GGMLQuantizationType.F16
            writer.add_tensor(tensor.name, values.astype(np.float16), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def record_of(done: Outcome) -> dict[str, Any]:
    """The only record of a command that went well."""
    assert done.code == 0, done.err
    (record,) = done.records
    return record


def tokens(done: Outcome) -> list[int]:
    found: list[int] = record_of(done)["output"]["first_token_ids"]
    return found
