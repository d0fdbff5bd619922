"""The weights of a GGUF in a floating point type, in a file of the cache."""

import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path

from xpubench.errors import RunFailure, UserError
from xpubench.files import cache_directory, directory_aside
from xpubench.runtimes.llama_cpp.gguf_file import Gguf, read_gguf
from xpubench.runtimes.llama_cpp.library import last_error, library

# llama.cpp's numbers of the types of a file (enum llama_ftype in llama.h). Matrices have the type, norms and
# biases stay in float32.
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}


def dequantized(gguf: Gguf, kind: str, say: Callable[[str], None]) -> Gguf:
    """The GGUF with its matrices in the type `kind`, one of `FILE_TYPES`: the same one where they are, else
    one that llama.cpp converts and that stays in the cache. Raises UserError where the cache cannot be
    written, and RunFailure `unsupported` where llama.cpp does not convert the file."""
    if set(gguf.matrix_types) == {kind}:
        return gguf
    known = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in gguf.files]
    digest = hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    stem = gguf.files[0].stem
    directory, name = cache_directory() / "gguf" / f"{stem}-{kind.lower()}-{digest}", f"{stem}-{kind}.gguf"
    if not directory.is_dir():
        say(f"converting {gguf.files[0].name} to {kind}; the next run finds it in the cache")
        try:
            with directory_aside(directory, replace=False) as aside:
                _convert(gguf.files[0], aside / name, kind)
        except OSError as error:
            hint = "set XDG_CACHE_HOME to a directory that can be written"
            raise UserError(
                f"cannot write to the cache {directory.parent}: {error.strerror}; {hint}"
            ) from error
    return read_gguf(str(directory / name))


def _convert(source: Path, target: Path, kind: str) -> None:
    llama = library()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[kind]
    parameters.allow_requantize = True
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) != 0:
        raise RunFailure("unsupported", f"llama.cpp does not convert {source} to {kind}: {last_error()}")
