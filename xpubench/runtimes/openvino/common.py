"""What OpenVINO's runtimes without a transformers model share: config, tokenizer, sizes, threads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.openvino import ir
from xpubench.spec import Subject
from xpubench.weights.pretrained import load_tokenizer
from xpubench.weights.source import read_config


class OpenVinoRuntime:
    """A loaded IR, its tokenizer and what is known of both."""

    hides_logits: str | None = None
    merges_lora = True

    def __init__(self, subject: Subject, directory: Path) -> None:
        self.subject = subject
        self.directory = directory
        self.asked = ir.properties(subject)
        # As plain JSON: transformers' class of a config imports what models need, two seconds of it.
        self.config = read_config(str(directory), revision=None, trust_remote_code=subject.trust_remote_code)
        self.tokenizer = load_tokenizer(directory, subject.trust_remote_code)
        self.vocab_size = _vocab_size(self.config)
        self._torch = ir.QuietTorch()
        self._weight_bytes = self._step_weight_bytes = 0

    @classmethod
    def set_up(cls) -> None:
        """Nothing."""

    @classmethod
    def check(cls, subject: Subject) -> None:
        ir.check(subject)

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        ir.fetch(subject, say, merge_lora=cls.merges_lora)

    def encode(self, text: str) -> list[int]:
        return list(self._needed_tokenizer()(text)["input_ids"])

    def decode(self, token_ids: list[int]) -> str:
        return str(self._needed_tokenizer().decode(token_ids, skip_special_tokens=True))

    def _needed_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise UserError(
                f"{self.subject.model} comes without a tokenizer here; leave out --prompt to use token ids"
            )
        return self.tokenizer

    @property
    def special_ids(self) -> frozenset[int]:
        known = set(self.tokenizer.all_special_ids) if self.tokenizer is not None else set()
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = self.config.get(name)
            known.update(value if isinstance(value, list) else [] if value is None else [value])
        # As in the runtime `pytorch`, so that one seed gives the same prompts everywhere.
        pad = self.config.get("pad_token_id")
        return frozenset(known | {0 if pad is None else pad})

    @property
    def step_weight_bytes(self) -> int:
        return self._step_weight_bytes

    def describe(self) -> dict[str, Any]:
        """What is known of the loaded IR; a runtime adds what it applied."""
        return {
            "name": self.subject.runtime,
            "ir": ir.kept_recipe(self.directory),
            "asked": self.asked,
            "weight_bytes": self._weight_bytes,
            "step_weight_bytes": self._step_weight_bytes,
            "torch_threads": 1,
        }


def _vocab_size(config: dict[str, Any]) -> int:
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    if not isinstance(size, int):
        raise RunFailure(
            "bad_model", "the IR's config.json does not say how large the vocabulary is (vocab_size)"
        )
    return size
