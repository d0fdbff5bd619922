"""The flags of `xpubench export`, which are those of optimum-cli, without OpenVINO."""

import pytest

from tests.conftest import CommandLine
from xpubench.errors import UserError
from xpubench.runtimes.openvino.options import OptimumDescription, pairs


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("OUT", "names no model"),
        ("a -m b OUT", "names two models"),
        ("-m a --task text-classification OUT", "--task text-classification is not supported"),
        ("-m a --library diffusers OUT", "--library diffusers is not supported"),
        ("-m a OUT --int8 --weight-format int4", "not allowed with argument"),
        # As the alias of --weight-format int8.
        ("-m a OUT --int8 --ratio 0.8", "--ratio applies only to int4"),
        ("-m a --quant-mode int8 OUT", "activations are not quantized"),
        ("-m a --disable-stateful OUT", "as a state of the model"),
        ("-m a --cache_dir C OUT", "HF_HUB_CACHE"),
        ("-m a --weight-format mxfp4 OUT", "mxfp4 is not supported: its export"),
        ("-m a --weight-format nf4 OUT", "nf4 is not supported: its export"),
        ("-m a --weight-format=cb4 OUT", "cb4 is not supported: its export"),
        ("-m a --weight-format int5 OUT", "invalid choice: 'int5'"),
        ("-m a --ratio 0.8 OUT", "--ratio applies only to int4"),
        ("-m a --ratio 0 OUT", "--ratio applies only to int4"),
        ("-m a --weight-format int8 --all-layers OUT", "--all-layers applies only to int4"),
        ("-m a --weight-format int4 --gptq OUT", "--gptq needs data"),
        ("-m a --weight-format int4 --num-samples 3 OUT", "--num-samples needs data"),
        ("-m a --weight-format int4 --dataset D --num-samples 0 OUT", "at least 1"),
        ("-m a --weight-format int4 --dataset D --gptq --lora-correction OUT", "leave one of the two out"),
        ("-m a --weight-format int4 --sensitivity-metric loudness OUT", "invalid choice: 'loudness'"),
        ("-m a --weight-format int4 --backup-precision int2 OUT", "invalid choice: 'int2'"),
    ],
)
def test_what_an_export_does_not_take(xpubench: CommandLine, line: str, words: str) -> None:
    done = xpubench("export", *line.split())
    assert done.code == 2
    assert words in done.error_line


def test_what_a_flag_takes_as_json() -> None:
    """Nested values stay JSON, and a text is one already."""
    given = ['{"DEVICE_PROPERTIES": {"CPU": {"A": true}},', '"B": 2, "C": "d", "E": [1]}']
    found = pairs("--ov-config", given)
    assert found == {"DEVICE_PROPERTIES": '{"CPU": {"A": true}}', "B": "2", "C": "d", "E": "[1]"}
    with pytest.raises(UserError, match="takes no null; give C a value"):
        pairs("--ov-config", ['{"A": 1, "C": null}'])


def test_a_ratio_of_0_is_a_part_of_the_recipe() -> None:
    """All matrices are INT8 then; without a ratio, all are INT4."""
    recipe = {"weight_format": "int4", "ratio": 0.0, "awq": False, "group_size": None}
    assert OptimumDescription(ir={"recipe": recipe}).recipe_text == "NNCF, weight_format int4, ratio 0.0"
