"""The tokenizer and the detokenizer that an export wrote, as OpenVINO runs them."""

from pathlib import Path
from typing import Any

import numpy as np

from xpubench.runtimes.openvino.stack import import_openvino, import_optional

TOKENIZER_IR, DETOKENIZER_IR = "openvino_tokenizer.xml", "openvino_detokenizer.xml"


class IrTokenizer:
    """Two compiled models: one turns a text into token ids, the other turns token ids into text without
    special tokens."""

    def __init__(self, tokenizer: Any, detokenizer: Any) -> None:
        """Takes two models, or the paths of their IRs."""
        # The import adds operations on strings to OpenVINO.
        import_optional("openvino_tokenizers")
        core = import_openvino().Core()
        self._tokenizer, self._detokenizer = (
            core.compile_model(one, "CPU").create_infer_request() for one in (tokenizer, detokenizer)
        )

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, including the special tokens that the tokenizer adds."""
        found: list[int] = self._tokenizer.infer({0: [text]})["input_ids"][0].tolist()
        return found

    def decode(self, token_ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        ids = np.array([token_ids], dtype=np.int64).reshape(1, -1)
        return str(self._detokenizer.infer({0: ids})["string_output"][0])


def has_tokenizer_ir(directory: Path) -> bool:
    """Whether IRs of a tokenizer and of its detokenizer lie in the directory."""
    return all((directory / name).is_file() for name in (TOKENIZER_IR, DETOKENIZER_IR))


def ir_tokenizer(directory: Path) -> IrTokenizer | None:
    """The tokenizer whose IRs lie in the directory; None where there are none."""
    if not has_tokenizer_ir(directory):
        return None
    return IrTokenizer(directory / TOKENIZER_IR, directory / DETOKENIZER_IR)
