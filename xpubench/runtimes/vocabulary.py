"""A model's tokens: how many there are, which are special, and the way from text to ids and back."""

from collections.abc import Callable
from typing import Any, Protocol

from xpubench.errors import UserError

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


class Coder(Protocol):
    """A stack's own tokenizer, which turns the text of a prompt into token ids and new tokens into text."""

    def encode(self, text: str) -> list[int]:
        """The text's token ids, with those that the tokenizer adds."""

    def decode(self, token_ids: list[int]) -> str:
        """The text of token ids, without special ones."""


class Vocabulary:
    """The token ids of the model `model`, which are 0 to `size` - 1. `tokenizer` is transformers' own, None
    for a checkpoint without one; texts go through `coder` where there is one. No random prompt contains any
    of `special_ids` (begin, end, padding and other special tokens)."""

    def __init__(
        self,
        model: str,
        size: int,
        tokenizer: Any,
        setting: Callable[[str], Any],
        coder: Coder | None = None,
    ) -> None:
        """`setting` gives a field of the model's config by its name, None where it has none."""
        self.size = size
        self.tokenizer = tokenizer
        self._model = model
        self._coder = coder
        known: set[int] = set(tokenizer.all_special_ids) if tokenizer is not None else set()
        for name in SPECIAL:
            value = setting(name)
            known.update(value if isinstance(value, list) else [] if value is None else [value])
        # transformers takes a prompt that ends in the padding token for one that is padded on the wrong side.
        padding = setting("pad_token_id")
        self.special_ids = frozenset(known | {0 if padding is None else padding})

    def encode(self, text: str) -> list[int]:
        """The text's token ids. UserError when the model has no tokenizer."""
        if self._coder is not None:
            return self._coder.encode(text)
        return list(self._needed_tokenizer()(text)["input_ids"])

    def decode(self, token_ids: list[int]) -> str:
        """The text of token ids, without special ones. UserError when the model has no tokenizer."""
        if self._coder is not None:
            return self._coder.decode(token_ids)
        return str(self._needed_tokenizer().decode(token_ids, skip_special_tokens=True))

    def _needed_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise UserError(
                f"{self._model} has no tokenizer that can be loaded; leave out --prompt to use token ids"
            )
        return self.tokenizer
