"""From a checkpoint to an OpenVINO IR with its tokenizer, through Optimum Intel and NNCF.

`python -m xpubench.runtimes.openvino.export` carries out an `ExportOrder`, given as JSON on its standard
input, so that the memory and the threads of an export are not those of a run.
"""

import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from xpubench.errors import RunFailure, UserError, first_line
from xpubench.files import cache_directory, expanded, model_aside
from xpubench.process.reports import Said, Send, serve
from xpubench.runtimes.openvino.command import MODEL_TASK
from xpubench.runtimes.openvino.options import IR_FILE, SETTINGS, WeightFormat
from xpubench.runtimes.openvino.predefined import settled
from xpubench.runtimes.openvino.recipe import RECIPE_FILE, ExportOrder, ExportRecipe
from xpubench.runtimes.openvino.stack import import_openvino
from xpubench.runtimes.openvino.tokenizer import has_tokenizer_ir
from xpubench.runtimes.openvino.tokenizer_export import doubts_of_tokenizer, write_tokenizer_irs
from xpubench.runtimes.options import was_given
from xpubench.weights.fingerprint import fingerprint
from xpubench.weights.pretrained import cannot_load, load_pretrained, load_tokenizer, tokenizer_files
from xpubench.weights.quiet import quiet_transformers
from xpubench.weights.source import Source, pickle_files, source_of, weight_files

Say = Callable[[str], None]

# This changes with the files that an export writes, so that exports of earlier versions are not used.
CACHE_VERSION = 2
VERSIONS = ("openvino", "openvino-tokenizers", "optimum-intel", "nncf", "transformers", "torch")
# Above this number of parameters Optimum compresses to int8 unless it is told otherwise.
INT8_BY_DEFAULT = 1_000_000_000
DATASETS = ("auto", "c4", "c4-new", "gsm8k", "wikitext2")
COMPRESSED = ("int8", "int4")


def export(recipe: ExportRecipe, out: Path, say: Say) -> Path:
    """Writes the IR, the tokenizer's IR, the checkpoint's config and tokenizer, and the recipe to the
    directory `out`, whole or not at all, and returns it.

    Raises UserError for what the user must change, such as an `out` that holds other files, and RunFailure
    for a checkpoint that cannot be used.
    """
    _check_out(out)
    _check_dataset(recipe.dataset)
    import_openvino()
    source = source_of(recipe)
    recipe = settled(recipe, source.config)
    if recipe.predefined is not None:
        say(f"{recipe.weight_format} with Optimum's settings for {recipe.predefined}: {_settings(recipe)}")
    try:
        with model_aside(out) as target, tempfile.TemporaryDirectory(dir=target) as between:
            kept = _made(recipe, source, target, Path(between), say)
            (target / RECIPE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    return out


def cached(recipe: ExportRecipe, source: Source) -> Path:
    """The path in the cache for the IR of a recipe and a checkpoint, whether it exists or not."""
    # Optimum finds its settings for a known model by the model's name.
    name = Path(recipe.model).name if recipe.weight_format in COMPRESSED else ""
    identity = {
        "recipe": _set_fields(msgspec.structs.replace(recipe, model=name, revision=None, lora=None)),
        "checkpoint": msgspec.to_builtins(fingerprint(source.directory)),
        "lora": None if recipe.lora is None else msgspec.to_builtins(fingerprint(Path(recipe.lora))),
        "versions": _versions(),
        "cache_version": CACHE_VERSION,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{Path(recipe.model).name.lower()}-{recipe.weight_format}-{digest}"
    return cache_directory() / "openvino" / name


def _versions() -> dict[str, str]:
    return {name: version(name) for name in VERSIONS}


def _settings(recipe: ExportRecipe) -> str:
    """The settings of the compression as text."""
    told = _set_fields(recipe)
    return ", ".join(f"{name} {told[name]}" for name in SETTINGS if name in told)


def _set_fields(recipe: ExportRecipe) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(recipe)
    return {name: value for name, value in fields.items() if was_given(value) and value != ""}


def _made(recipe: ExportRecipe, source: Source, target: Path, between: Path, say: Say) -> dict[str, Any]:
    """Makes the IR in `target`, with intermediate files in `between`. Returns the recipe file's content."""
    directory, method = source.directory, quantization_of(source)
    compressed = recipe.weight_format in COMPRESSED
    if method is not None:
        if compressed:
            raise UserError(
                f"{recipe.model} holds {method} weights already, which stay as they are; give "
                "--weight-format fp16 or fp32 for the others"
            )
        if recipe.lora is not None:
            raise UserError(f"a LoRA adapter cannot be merged into {method} weights; export the float model")
        say(f"the {method} weights stay as they are; --weight-format applies to the others")
    elif recipe.lora is None:
        # This refuses a checkpoint that lacks weights, which Optimum would silently fill with noise. On the
        # meta device no weight is read.
        _load(recipe, source, device="meta")
    else:
        say(f"merging the LoRA adapter {recipe.lora}")
        directory = _with_lora(recipe, source, between / "merged")
    plain = between / "plain" if compressed else target
    say(f"exporting {recipe.model} to OpenVINO, {recipe.weight_format}")
    with _quiet():
        _convert(source, directory, plain, recipe)
    if method is not None:
        _check_kept(method, plain, recipe)
    if compressed:
        say(f"compressing the weights to {recipe.weight_format}")
        with _quiet():
            _compress(plain, target, recipe)
    tokenizer = _tokenizer(directory, target, recipe.trust_remote_code, say)
    # Local directories are kept as absolute paths, so that they are found from elsewhere too.
    local = expanded(recipe.model)
    places = {"model": str(local.resolve()) if local.is_dir() else recipe.model}
    if recipe.lora is not None:
        places["lora"] = str(Path(recipe.lora).resolve())
    return {
        "recipe": _set_fields(recipe) | places,
        "commit": source.revision,
        "checkpoint": msgspec.to_builtins(fingerprint(source.directory)),
        "versions": _versions(),
    } | tokenizer


def _with_lora(recipe: ExportRecipe, source: Source, target: Path) -> Path:
    from xpubench.weights.lora import check_adapter, merged

    adapter = Path(recipe.lora or "")
    check_adapter(adapter, source.config)
    model, tokenizer = _load(recipe, source, device="cpu")
    merged(model, adapter).save_pretrained(target)
    if tokenizer is not None:
        tokenizer.save_pretrained(target)
    return target


def _load(recipe: ExportRecipe, source: Source, device: str) -> tuple[Any, Any]:
    model, tokenizer, _ = load_pretrained(
        source,
        dtype="float32",
        device=device,
        trust_remote_code=recipe.trust_remote_code,
        allow_pickle=recipe.allow_pickle,
    )
    return model, tokenizer


def quantization_of(source: Source) -> str | None:
    """The quantization method of the checkpoint; None where it is not quantized."""
    found = source.config.get("quantization_config")
    return str(found.get("quant_method")) if isinstance(found, dict) else None


def _check_kept(method: str, target: Path, recipe: ExportRecipe) -> None:
    """Raises RunFailure where no weight of the IR is INT4, because the conversion dequantized them."""
    ops = import_openvino().Core().read_model(target / IR_FILE).get_ops()
    constants = (op for op in ops if op.get_type_name() == "Constant")
    if not any(op.get_element_type().get_type_name() in ("i4", "u4") for op in constants):
        raise RunFailure(
            "unsupported",
            f"OpenVINO does not keep the {method} weights of {recipe.model} in INT4; export the float model "
            "with --weight-format int4",
        )


def _convert(source: Source, directory: Path, target: Path, recipe: ExportRecipe) -> None:
    from openvino.frontend import OpConversionFailure
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    try:
        main_export(
            str(directory),
            target,
            task=MODEL_TASK,
            library_name="transformers",
            ov_config=OVConfig(dtype="fp16" if recipe.weight_format == "fp16" else "fp32"),
            trust_remote_code=recipe.trust_remote_code,
            local_files_only=True,
        )
    except (ImportError, NameError) as error:  # Optimum raises these where gptqmodel is missing
        raise cannot_load(source, error) from error
    except OpConversionFailure as error:
        method = quantization_of(source)
        weights = f" with its {method} weights" if method else ""
        raise RunFailure("unsupported", f"OpenVINO cannot convert {recipe.model}{weights}") from error
    except (ValueError, KeyError, NotImplementedError) as error:
        reason = first_line(error)
        raise RunFailure("unsupported", f"Optimum Intel cannot export {recipe.model}: {reason}") from error


def _compress(plain: Path, target: Path, recipe: ExportRecipe) -> None:
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    texts: Any = recipe.dataset
    samples = recipe.num_samples
    if texts is not None and Path(texts).is_file():
        texts = _texts(Path(texts))
        samples = min(samples or len(texts), len(texts))
    settings: dict[str, Any] = {
        "ratio": recipe.ratio,
        "group_size": recipe.group_size,
        "group_size_fallback": recipe.group_size_fallback,
        "backup_precision": recipe.backup_precision,
        "all_layers": recipe.all_layers or None,
        "quant_method": "awq" if recipe.awq else "default",
        "scale_estimation": recipe.scale_estimation or None,
        "gptq": recipe.gptq or None,
        "lora_correction": recipe.lora_correction or None,
        "sensitivity_metric": recipe.sensitivity_metric,
        "dq_group_size": recipe.dq_group_size,
        "ignored_scope": recipe.ignored_scope,
        "dataset": texts,
        "num_samples": samples,
        "tokenizer": str(plain) if texts is not None else None,
    }
    try:
        config = OVWeightQuantizationConfig(
            bits=4 if recipe.weight_format == "int4" else 8,
            sym=bool(recipe.sym),
            **{name: value for name, value in settings.items() if value is not None},
        )
        model = OVModelForCausalLM.from_pretrained(
            plain,
            compile=False,
            quantization_config=config,
            local_files_only=True,
            trust_remote_code=recipe.trust_remote_code,
        )
    except Exception as error:  # NNCF's exceptions differ by version
        problem = f"NNCF cannot compress {recipe.model} with these settings: {first_line(error)}"
        if recipe.predefined is not None:
            problem += f"; they are Optimum's ({_settings(recipe)}), and any flag replaces all of them"
        raise UserError(problem) from error
    model.save_pretrained(target)


def _tokenizer(directory: Path, target: Path, trust_remote_code: bool, say: Say) -> dict[str, Any]:
    """Writes the tokenizer and its IRs, and returns what the recipe records about them."""
    with _quiet():
        tokenizer = load_tokenizer(directory, trust_remote_code)
    if tokenizer is None:
        # Optimum saves the empty tokenizer that transformers makes where there is none.
        for file in tokenizer_files(target):
            file.unlink()
        return {"tokenizer": "none: the checkpoint has none"}
    tokenizer.save_pretrained(target)
    with _quiet():
        kept = write_tokenizer_irs(tokenizer, target)
    if not has_tokenizer_ir(target):
        say(f"the tokenizer stays transformers' own: {kept['tokenizer'].partition(': ')[2]}")
    for doubt in doubts_of_tokenizer(kept):
        say(f"warning: {doubt}")
    return kept


def default_format(recipe: ExportRecipe) -> WeightFormat:
    """Optimum's choice for the recipe's checkpoint when none is given: int8 above a billion parameters, else
    fp16."""
    source = source_of(recipe)
    if quantization_of(source) is not None:
        return "fp16"
    files = weight_files(source.directory) or pickle_files(source.directory)
    bytes_each = 4 if source.config.get("torch_dtype", source.config.get("dtype")) == "float32" else 2
    return "int8" if sum(file.stat().st_size for file in files) / bytes_each >= INT8_BY_DEFAULT else "fp16"


def _texts(path: Path) -> list[str]:
    texts = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if not texts:
        raise UserError(f"{path} holds no text for the calibration; give a file with one text in each line")
    return texts


def _check_dataset(dataset: str | None) -> None:
    if dataset is None or dataset in DATASETS:
        return
    if not Path(dataset).is_file():
        raise UserError(
            f"--dataset {dataset!r} is neither a local text file nor one that Optimum knows: "
            f"{', '.join(DATASETS)}"
        )
    _texts(Path(dataset))


def _check_out(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; name a directory for the IR")
    if any(out.iterdir()) and not (out / RECIPE_FILE).is_file():
        raise UserError(f"{out} holds other files; name a new or empty directory for the IR")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the libraries' advice and progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            quiet_transformers(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        logging.disable(before)


def _export_ordered(line: bytes, send: Send) -> None:
    order = msgspec.json.decode(line, type=ExportOrder)
    export(order.recipe, Path(order.out), lambda text: send(Said(text)))


if __name__ == "__main__":
    sys.exit(serve(_export_ordered))
