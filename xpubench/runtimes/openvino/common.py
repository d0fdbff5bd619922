"""What OpenVINO's runtimes without a transformers model share: config, tokenizer, sizes, threads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpubench.errors import RunFailure
from xpubench.measure.device import TorchDevice, available_devices
from xpubench.runtimes.base import Device, Origin, Quantizer
from xpubench.runtimes.openvino import ir
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import Subject
from xpubench.weights.pretrained import load_tokenizer
from xpubench.weights.source import read_config


class OpenVinoRuntime:
    """A loaded IR, its tokenizer and what is known of both."""

    merges_lora = True

    def __init__(self, subject: Subject, directory: Path) -> None:
        self.subject = subject
        self.directory = directory
        self.asked = ir.properties(subject)
        # As plain JSON: transformers' class of a config imports what models need, two seconds of it.
        self.config = read_config(str(directory), revision=None, trust_remote_code=subject.trust_remote_code)
        self.vocabulary = Vocabulary(
            subject.model,
            _vocab_size(self.config),
            load_tokenizer(directory, subject.trust_remote_code),
            self.config.get,
        )
        self._torch = ir.QuietTorch()
        self._weight_bytes = self._step_weight_bytes = 0

    @classmethod
    def set_up(cls) -> None:
        """Nothing."""

    @classmethod
    def check(cls, subject: Subject) -> None:
        ir.check(subject)

    @classmethod
    def model_config(cls, subject: Subject) -> dict[str, Any]:
        return read_config(
            subject.weights_from, revision=subject.revision, trust_remote_code=subject.trust_remote_code
        )

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        ir.fetch(subject, say, merge_lora=cls.merges_lora)

    @classmethod
    def first_device(cls) -> str:
        return available_devices()[0]

    @classmethod
    def device(cls, subject: Subject) -> Device:
        return TorchDevice(subject.device)

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        return ir.origin(subject)

    @classmethod
    def quantizer(cls) -> Quantizer | None:
        return None

    def described(self) -> dict[str, Any]:
        """The fields of the description that all of OpenVINO's runtimes have."""
        return {
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
