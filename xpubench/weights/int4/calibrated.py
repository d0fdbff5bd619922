"""INT4 checkpoints through the package auto-round: AutoRound's learned rounding, and AWQ's scales.

auto-round quantizes the linear layers of the model's blocks; token table and output head stay in float16.
Calibration texts come from a local file, as auto-round's own data sets are on the hub.
"""

import hashlib
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import torch

from xpubench.errors import RunFailure, UserError, first_line
from xpubench.files import model_aside
from xpubench.progress import Progress
from xpubench.weights.fingerprint import of_directory
from xpubench.weights.int4.recipes import CALIBRATED_FILE, CalibratedDescription, CalibratedRecipe
from xpubench.weights.pretrained import QUANTIZERS, load_pretrained
from xpubench.weights.quiet import quiet_transformers
from xpubench.weights.source import Source, Wanted, source_of

# What auto-round computes in where it quantizes on a CPU without bfloat16, here on every machine.
CALIBRATION_DTYPE = "float32"
SEED = 42


def write_calibrated(
    wanted: Wanted, recipe: CalibratedRecipe, target: Path, progress: Progress
) -> CalibratedDescription:
    """Quantizes the wanted checkpoint on the CPU and writes it with its recipe to `target`, whole or not at
    all. UserError for what the user must change, RunFailure for a checkpoint that cannot be used."""
    texts = read_texts(Path(recipe.dataset))
    library = _library()
    progress.say(f"looking for {wanted.weights_from}")
    source = source_of(wanted)
    _check_source(source, recipe)
    model, tokenizer, _ = load_pretrained(
        source,
        dtype=CALIBRATION_DTYPE,
        device="cpu",
        trust_remote_code=wanted.trust_remote_code,
        allow_pickle=wanted.allow_pickle,
    )
    if tokenizer is None:
        raise UserError(f"{wanted.weights_from} has no tokenizer, which the texts of --dataset need")
    samples = token_samples(tokenizer, texts, recipe)
    description = CalibratedDescription(
        recipe=recipe,
        dataset_sha256=hashlib.sha256(Path(recipe.dataset).read_bytes()).hexdigest(),
        source=wanted.weights_from,
        checkpoint=of_directory(source.directory),
        revision=source.revision,
        auto_round_version=library.__version__,
    )
    progress.say(f"quantizing through auto-round {library.__version__}, block after block")
    try:
        with model_aside(target) as aside, TemporaryDirectory(dir=aside) as between:
            with quiet_transformers():
                _quantize(library, model, tokenizer, samples, recipe, Path(between))
            _move(Path(between), aside)
            (aside / CALIBRATED_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(description)))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    return description


def read_texts(path: Path) -> str:
    """The text of a file, of JSON lines their fields `text` with empty lines between. UserError where there
    is none."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"--dataset {path} cannot be read: {reason}") from error
    if path.suffix == ".jsonl":
        try:
            content = "\n\n".join(json.loads(line)["text"] for line in content.splitlines() if line.strip())
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'--dataset {path} must have lines such as {{"text": "..."}}') from error
    if not content.strip():
        raise UserError(f"--dataset {path} holds no text")
    return content


def token_samples(tokenizer: Any, text: str, recipe: CalibratedRecipe) -> list[torch.Tensor]:
    """Samples of token ids, int64 (1, seqlen), from places at equal distances in the text. UserError where
    it is too short for that many without an overlap."""
    with quiet_transformers():
        ids = tokenizer(text)["input_ids"]
    length = recipe.seqlen
    if len(ids) < recipe.nsamples * length:
        raise UserError(
            f"--dataset {recipe.dataset} holds {len(ids):,} tokens, {len(ids) // length:,} samples of "
            f"{length}; give more text, or smaller --nsamples or --seqlen"
        )
    step = len(ids) // recipe.nsamples
    places = range(0, recipe.nsamples * step, step)
    return [torch.tensor([ids[place : place + length]]) for place in places]


def _library() -> Any:
    try:
        import auto_round
    except ImportError as error:
        raise UserError(
            f"AutoRound and AWQ need the package auto-round: {QUANTIZERS['auto-round']}"
        ) from error
    return auto_round


def _check_source(source: Source, recipe: CalibratedRecipe) -> None:
    if "quantization_config" in source.config:
        raise UserError(f"{source.name} is quantized already; name the float model")
    positions = source.config.get("max_position_embeddings")
    if isinstance(positions, int) and recipe.seqlen > positions:
        raise UserError(f"--seqlen {recipe.seqlen} is more than the {positions} positions of {source.name}")


def _quantize(
    library: Any,
    model: Any,
    tokenizer: Any,
    samples: list[torch.Tensor],
    recipe: CalibratedRecipe,
    directory: Path,
) -> None:
    """Has auto-round write the checkpoint below a directory. Its data are given as a loader would give
    them, with masks of ones."""
    algorithm = {"iters": recipe.iters} if recipe.algorithm == "AutoRound" else {"alg_configs": "awq"}
    try:
        library.AutoRound(
            model,
            tokenizer,
            scheme="W4A16",
            group_size=recipe.group_size,
            sym=recipe.symmetric,
            dataset=[{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in samples],
            nsamples=recipe.nsamples,
            seqlen=recipe.seqlen,
            batch_size=min(recipe.batch_size, recipe.nsamples),
            seed=SEED,
            device_map="cpu",
            amp=False,
            enable_torch_compile=False,
            low_cpu_mem_usage=False,
            **algorithm,
        ).quantize_and_save(str(directory), format="auto_round")
    # Some of its refusals end the process.
    except SystemExit as error:
        raise RunFailure("unsupported", "auto-round gave up on this model") from error
    except (ValueError, NotImplementedError, AssertionError) as error:
        raise RunFailure("unsupported", f"auto-round: {first_line(error)}") from error


def _move(written: Path, target: Path) -> None:
    """Moves the files of the checkpoint, which auto-round writes into a directory named by the scheme."""
    found = [config.parent for config in written.rglob("config.json")]
    if len(found) != 1:
        raise RunFailure("unsupported", "auto-round wrote no checkpoint")
    for file in found[0].iterdir():
        shutil.move(file, target / file.name)
