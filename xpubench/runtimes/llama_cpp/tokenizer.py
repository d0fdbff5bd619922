"""A GGUF's own tokenizer, in the form of transformers' tokenizers."""

import ctypes
from functools import cached_property
from typing import Any

from xpubench.runtimes.llama_cpp.library import library
from xpubench.runtimes.vocabulary import SPECIAL

# The buffer has this many bytes for each token, which nearly always suffices. A longer text is asked for a
# second time.
USUAL_BYTES = 16


class GgufTokenizer:
    """The tokenizer of a loaded model. As in transformers, the names of control tokens in a text become their
    ids."""

    def __init__(self, model: Any, name: str) -> None:
        self._llama = library()
        self._vocabulary = self._llama.llama_model_get_vocab(model)
        self.name_or_path = name
        self.vocab_size = int(self._llama.llama_vocab_n_tokens(self._vocabulary))
        self.bos_token_id, self.eos_token_id, self.pad_token_id = map(self._special_id, SPECIAL)

    def _special_id(self, name: str) -> int | None:
        """The id of a special token by transformers' name for it, None where the GGUF has none."""
        function = getattr(self._llama, f"llama_vocab_{name.removesuffix('_token_id')}")
        found = int(function(self._vocabulary))
        return None if found < 0 else found

    @cached_property
    def all_special_ids(self) -> list[int]:
        """The ids of control tokens."""
        attribute, control = self._llama.llama_vocab_get_attr, self._llama.LLAMA_TOKEN_ATTR_CONTROL
        return [one for one in range(self.vocab_size) if attribute(self._vocabulary, one) & control]

    @property
    def end_ids(self) -> list[int]:
        """The control tokens at which llama.cpp ends a text."""
        ends = self._llama.llama_vocab_is_eog
        return [one for one in self.all_special_ids if ends(self._vocabulary, one)]

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": self.encode(text)}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with the special tokens that the GGUF says begin and end one."""
        data = text.encode()
        size = len(data) + 2
        ids = (ctypes.c_int32 * size)()
        # A negative count is minus the number of ids, where the buffer is too small. There are never more ids
        # than bytes of text and one special token before and after them.
        count = self._llama.llama_tokenize(
            self._vocabulary, data, len(data), ids, size, add_special_tokens, True
        )
        if count < 0:
            raise ValueError(f"llama.cpp has {-count} ids for a text of {len(data)} bytes")
        return list(ids[:count])

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        ids = (ctypes.c_int32 * len(token_ids))(*token_ids)
        size = USUAL_BYTES * (len(token_ids) + 1)
        while True:
            text = ctypes.create_string_buffer(size)
            length = self._llama.llama_detokenize(
                self._vocabulary, ids, len(ids), text, size, False, not skip_special_tokens
            )
            if length >= 0:
                return text.raw[:length].decode(errors="replace")
            size = -length
