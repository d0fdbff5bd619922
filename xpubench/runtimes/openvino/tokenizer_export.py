"""The tokenizer's part of an export: its IRs, and their comparison with transformers' tokenizer."""

from pathlib import Path
from typing import Any

from xpubench.errors import first_line
from xpubench.runtimes.openvino.tokenizer import DETOKENIZER_IR, TOKENIZER_IR, IrTokenizer
from xpubench.runtimes.openvino.tokenizer_texts import texts

CONVERTED = "tokenizer and detokenizer IR"


def write_tokenizer_irs(tokenizer: Any, target: Path) -> dict[str, Any]:
    """Writes IRs of transformers' tokenizer to the directory. Returns what the recipe records: in words,
    whether the IRs could be made, and how they compare with the tokenizer that they were made from."""
    from openvino import save_model
    from openvino_tokenizers import convert_tokenizer

    try:
        pair = convert_tokenizer(tokenizer, with_detokenizer=True, utf8_replace_mode="replace")
    except Exception as error:  # the conversion raises all kinds of exceptions
        reason = f"openvino_tokenizers cannot convert it ({first_line(error)})"
        return {"tokenizer": f"transformers alone: {reason}"}
    for model, name in zip(pair, (TOKENIZER_IR, DETOKENIZER_IR), strict=True):
        save_model(model, target / name)
    return {"tokenizer": CONVERTED, "tokenizer_check": compared(IrTokenizer(*pair), tokenizer)}


def compared(ir: IrTokenizer, tokenizer: Any) -> dict[str, Any]:
    """Compares the IRs with transformers' tokenizer: on how many of a few hundred texts they give other ids,
    or decode the same ids to another text, and the first such text."""
    tried = texts(tokenizer.all_special_tokens)
    other_ids, other_texts = [], []
    for text in tried:
        ids = list(tokenizer(text)["input_ids"])
        if ir.encode(text) != ids:
            other_ids.append(text)
        if ids and ir.decode(ids) != tokenizer.decode(ids, skip_special_tokens=True):
            other_texts.append(text)
    first = next(iter([*other_ids, *other_texts]), None)
    return {
        "texts": len(tried),
        "other_ids": len(other_ids),
        "other_texts": len(other_texts),
        "first": first,
    }


def doubts_of_tokenizer(kept: dict[str, Any]) -> list[str]:
    """A warning where the recipe says that the tokenizer's IRs differ from transformers' tokenizer."""
    found = kept.get("tokenizer_check") or {}
    told = [
        f"{found[name]} {what}"
        for name, what in (("other_ids", "have other token ids"), ("other_texts", "are decoded otherwise"))
        if found.get(name)
    ]
    if not told:
        return []
    first = str(found.get("first"))[:40]
    return [
        f"the tokenizer's IR differs from transformers' tokenizer: of {found['texts']} texts "
        f"{' and '.join(told)}, first {first!r}"
    ]
