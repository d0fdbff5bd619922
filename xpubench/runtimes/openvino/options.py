"""The flags that speak to OpenVINO, and the way from them to the spec's options."""

import argparse
import json
from typing import Any, get_args

from xpubench.errors import UserError, unknown
from xpubench.spec import OpenVinoOptions, WeightFormat

OV_DEVICES = ("CPU", "GPU", "NPU", "AUTO")
DEVICES = {"cpu": "CPU", "xpu": "GPU"}
GENAI = "openvino-genai"


def add_openvino_flags(parser: argparse.ArgumentParser) -> None:
    """OpenVINO's device, its properties by name, and what GenAI alone has."""
    group = parser.add_argument_group("OpenVINO (with --runtime openvino, openvino-genai, openvino-base)")
    group.add_argument("--ov-device", choices=OV_DEVICES, help="default: as --device, cpu: CPU, xpu: GPU")
    group.add_argument(
        "--ov-config", nargs="+", metavar="KEY=VALUE", help="properties by OpenVINO's names, or a JSON object"
    )
    group.add_argument(
        "--weight-format",
        choices=get_args(WeightFormat),
        help="of the export that a checkpoint needs first (default: by --dtype, fp32 or fp16)",
    )
    group.add_argument("--kv-cache-precision", choices=("u8", "f16", "bf16"))
    group.add_argument("--dynamic-quantization-group-size", type=int, choices=(0, 32, 64, 128))
    group.add_argument("--performance-hint", choices=("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT"))
    group.add_argument(
        "--inference-precision", choices=("f32", "bf16", "f16"), help="default: as --dtype says"
    )
    group.add_argument("--num-streams", type=int, metavar="N")
    group.add_argument("--threads", type=int, metavar="N", help="of OpenVINO's inference on the CPU")
    group.add_argument("--draft-model", metavar="IR", help="with openvino-genai: speculative decoding")
    group.add_argument("--num-assistant-tokens", type=int, metavar="N", help="candidates a step")
    group.add_argument("--prompt-lookup", action="store_true", help="with openvino-genai: the prompt drafts")
    group.add_argument(
        "--ov-scheduler",
        nargs="+",
        metavar="KEY=VALUE",
        help="with openvino-genai: SchedulerConfig, such as cache_size=2",
    )


def openvino_options(args: argparse.Namespace, runtime: str, device: str) -> OpenVinoOptions | None:
    """The options of an OpenVINO runtime, None for another. UserError where flags and runtime do not fit."""
    if not runtime.startswith("openvino"):
        _check_none_given(args, runtime)
        return None
    of_genai = {
        "--draft-model": args.draft_model,
        "--num-assistant-tokens": args.num_assistant_tokens,
        "--prompt-lookup": args.prompt_lookup,
        "--ov-scheduler": args.ov_scheduler,
    }
    for flag, value in of_genai.items():
        if value and runtime != GENAI:
            raise UserError(f"{flag} is of --runtime {GENAI}, not of {runtime}")
    if args.draft_model and args.prompt_lookup:
        raise UserError("--draft-model and --prompt-lookup are two ways to draft; give one")
    if args.num_assistant_tokens and not (args.draft_model or args.prompt_lookup):
        raise UserError("--num-assistant-tokens needs --draft-model or --prompt-lookup")
    if device not in DEVICES and args.ov_device is None:
        raise UserError(f"OpenVINO does not run on {device}; give --device cpu or xpu, or --ov-device")
    return OpenVinoOptions(
        device=args.ov_device or DEVICES[device],
        weight_format=args.weight_format,
        kv_cache_precision=args.kv_cache_precision,
        dynamic_quantization_group_size=args.dynamic_quantization_group_size,
        performance_hint=args.performance_hint,
        inference_precision=args.inference_precision,
        num_streams=args.num_streams,
        threads=args.threads,
        config=_pairs("--ov-config", args.ov_config),
        draft_model=args.draft_model,
        num_assistant_tokens=args.num_assistant_tokens,
        prompt_lookup=args.prompt_lookup,
        scheduler=_pairs("--ov-scheduler", args.ov_scheduler),
    )


def runtime_names(args: argparse.Namespace) -> list[str]:
    """The runtimes that were asked for, each once; UserError for an unknown one."""
    if args.runtime is None:
        return ["ipex" if args.ipex else "pytorch"]
    from xpubench.runtimes.base import RUNTIMES  # imports numpy, which --help needs not

    names = list(dict.fromkeys(name.strip() for name in args.runtime.split(",") if name.strip()))
    for name in names:
        if name not in RUNTIMES:
            raise unknown("runtime", name, list(RUNTIMES))
    if not names:
        raise UserError(f"--runtime names none; there are {', '.join(RUNTIMES)}")
    if args.ipex and names != ["ipex"]:
        raise UserError("--ipex is --runtime ipex; leave one of them out")
    return names


FLAGS = (
    *("ov_device", "ov_config", "weight_format", "kv_cache_precision", "dynamic_quantization_group_size"),
    *("performance_hint", "inference_precision", "num_streams", "threads", "draft_model"),
    *("num_assistant_tokens", "prompt_lookup", "ov_scheduler"),
)


def _check_none_given(args: argparse.Namespace, runtime: str) -> None:
    for name in FLAGS:
        if getattr(args, name) not in (None, False):
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{flag} speaks to OpenVINO, not to {runtime}; give --runtime openvino-base, or leave it out"
            )


def _pairs(flag: str, given: list[str] | None) -> dict[str, str]:
    """KEY=VALUE words, or one JSON object."""
    if not given:
        return {}
    if given[0].lstrip().startswith("{"):
        try:
            fields: Any = json.loads(" ".join(given))
        except ValueError as error:
            raise UserError(f"{flag} is neither KEY=VALUE nor a JSON object: {error}") from error
        return {str(name): str(value) for name, value in fields.items()}
    pairs = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UserError(f"{flag} takes KEY=VALUE, not {word!r}")
        pairs[name] = value
    return pairs
