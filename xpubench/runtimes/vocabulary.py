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
    of `special_ids` (begin, end, padding and other special tokens). A generated text ends at each of
    `end_ids`."""

    def __init__(
        self,
        model: str,
        size: int,
        tokenizer: Any,
        setting: Callable[[str], Any],
        coder: Coder | None = None,
        ending: Any = None,
    ) -> None:
        """`setting` gives a field of the model's config by its name, None where it has none. `ending` is what
        the stack or the checkpoint's generation config says that a text ends at: an id, several, or None."""
        self.size = size
        self.tokenizer = tokenizer
        self._model = model
        self._coder = coder
        known: set[int] = set(tokenizer.all_special_ids) if tokenizer is not None else set()
        for name in SPECIAL:
            known.update(_ids(setting(name)))
        # transformers takes a prompt that ends in the padding token for one that is padded on the wrong side.
        padding = setting("pad_token_id")
        self.special_ids = frozenset(known | {0 if padding is None else padding})
        # As transformers does, which reads the config's where there is no generation config.
        named = _ids(setting("eos_token_id") if ending is None else ending)
        self.end_ids = frozenset([*named, *_ids(getattr(tokenizer, "eos_token_id", None))])

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


def _ids(value: Any) -> list[int]:
    """The ids in a field of a config: one, several or none."""
    return value if isinstance(value, list) else [] if value is None else [value]
