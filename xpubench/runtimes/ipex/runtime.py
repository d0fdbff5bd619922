"""IPEX: a transformers model after `ipex.llm.optimize`, under autocast."""

import contextlib
import os
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xpubench.catalog.defects import Defect
from xpubench.errors import RunFailure, UserError, first_line
from xpubench.failures import is_out_of_memory
from xpubench.measure.clock import TokenClock
from xpubench.measure.rounding import UNIT_ROUNDOFF, logit_limit
from xpubench.runtimes.base import Generation, Logits, Quantizer, Rows, Scores, TokenIds
from xpubench.runtimes.defects import known_defects
from xpubench.runtimes.ipex.neural_compressor import check_recipe, load_rtn, save_rtn
from xpubench.runtimes.ipex.options import INSTALL, ipex_options
from xpubench.runtimes.ipex.plain import (
    PROMPTS,
    PlainAnswers,
    ask,
    check_beams,
    check_logits,
    check_scores,
)
from xpubench.runtimes.ipex.state import compute_engine, forget_searches
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.runtimes.pytorch.scoring import regrets_of_beginnings
from xpubench.spec import Quantization, Subject, Workload
from xpubench.weights.load import LoadedWeights

NEEDED_VARIABLES = {"SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS": "2"}
FORBIDDEN_VARIABLES = ("TORCH_LLM_ALLREDUCE",)
XPU_LAYERS = "intel_extension_for_pytorch.transformers.models.xpu"
# IPEX imports them with every `llm.optimize` on xpu and declares neither.
XPU_IMPORTS = ("diffusers", "einops")
# The kernels of the optimized layers take no other dtype on xpu, and no other number of beams over a static
# cache.
XPU_DTYPE = "float16"
BEAM_WIDTHS = (1, 4)
ERRORS_OF_IPEX = (AttributeError, IndexError, NameError, RuntimeError, TypeError)
# No token has this id: IPEX's own beam search needs an end-of-sequence token, which must end no run.
NO_TOKEN = -1


class IpexRuntime(PyTorchRuntime):
    """A transformers model that IPEX optimized, or that the user allowed it to leave as it was."""

    optimized = False
    blocks = optimized_blocks = 0
    plain: PlainAnswers

    def __init__(self, subject: Subject, loaded: LoadedWeights) -> None:
        super().__init__(subject, loaded)
        self._compared: set[Any] = set()

    @classmethod
    def card(cls, *_: object) -> None:
        """None: IPEX replaces the kernels and the blocks that a card is about."""

    def continue_random_cache(self, prompt_ids: TokenIds, workload: Workload) -> Generation | None:
        # IPEX keeps keys and values in formats of its own.
        return None

    @classmethod
    def set_up(cls) -> None:
        set_environment()

    @classmethod
    def check(cls, subject: Subject) -> None:
        if subject.device not in ("xpu", "cpu"):
            raise UserError(f"IPEX runs on xpu and cpu, not on {subject.device}; leave out --ipex")
        super().check(subject)
        import_ipex()
        if _optimizes_on_xpu(subject):
            _check_xpu(subject)
            refuse_known(subject, cls.model_config(subject).get("model_type"))

    @classmethod
    def check_quantization(cls, subject: Subject, recipe: Quantization) -> None:
        """UserError when neural-compressor does not take the recipe here."""
        import_ipex()
        check_recipe(subject, recipe)

    @classmethod
    def quantizer(cls) -> Quantizer | None:
        return save_rtn

    @classmethod
    def weights(cls, subject: Subject) -> LoadedWeights:
        """The subject's model, quantized by neural-compressor where it asks for that."""
        if subject.quantization is None:
            return super().weights(subject)
        return load_rtn(subject, subject.quantization)

    def prepare(self, workload: Workload) -> None:
        if self._has_own_beam_search(workload) and workload.num_beams not in BEAM_WIDTHS:
            raise RunFailure(
                "unsupported",
                f"IPEX's static cache takes {' or '.join(map(str, BEAM_WIDTHS))} beams, not "
                f"{workload.num_beams}; change --num-beams, or leave out --use-static-cache",
            )
        if _optimizes_on_xpu(self.subject):
            refuse_known(self.subject, self.model.config.model_type, workload)
        self._compare_with_plain(workload)
        super().prepare(workload)
        forget_searches()

    def _compare_with_plain(self, workload: Workload) -> None:
        """Raises RunFailure `numerics` where the workload's kind of cache and search does not give the
        plain model's answers. Each kind is compared once."""
        checks = [check_logits] if workload.num_beams == 1 else [check_logits, check_beams]
        for check in checks:
            if (check, workload.cache) not in self._compared:
                super().prepare(workload)
                forget_searches()
                with self._naming_defects():
                    check(self.plain, self, workload.cache, logit_limit(self.rounding, self.blocks))
                self._compared.add((check, workload.cache))

    def regrets(self, prompt_ids: TokenIds, tokens: TokenIds, rank: int) -> NDArray[np.float32]:
        """The regrets of tokens after some beginnings of the sequence, because on xpu IPEX's output heads
        give the logits of the last position only, unless the run is one of accuracy."""

        def last_logits(token_ids: TokenIds) -> Logits:
            one = Workload(input_tokens=token_ids.shape[1], new_tokens=1)
            forget_searches()
            return self.traced(token_ids, one, None)[1][:, -1]

        return regrets_of_beginnings(prompt_ids, tokens, rank, last_logits)

    def target_logprobs(self, token_ids: TokenIds, rows: Rows, targets: TokenIds) -> Scores:
        if check_scores not in self._compared:
            alone = self.model.config.model_type in self.subject.options.scored_alone
            with self._naming_defects():
                limit = logit_limit(self.rounding, self.blocks)
                check_scores(self.plain, self, 1 if alone else PROMPTS, limit)
            self._compared.add(check_scores)
        return super().target_logprobs(token_ids, rows, targets)

    @contextlib.contextmanager
    def _naming_defects(self) -> Iterator[None]:
        """Adds to a failure in the block the known defects that may explain it. An error of IPEX's own code
        in the block is the failure `unsupported`, because the plain model has generated the same tokens
        without it."""
        try:
            yield
        except ERRORS_OF_IPEX as error:
            if is_out_of_memory(error):
                raise
            advice = "--disable-auto-cast, or leave out --ipex" if self.autocast else "it without --ipex"
            raise RunFailure(
                "unsupported",
                f"IPEX's layers of {type(self.model).__name__} end in {type(error).__name__}: "
                f"{first_line(error)}; try {advice}",
            ) from error
        except RunFailure as failure:
            known = defects_here(self.subject, self.model.config.model_type)
            reasons = [f"; known: {one.text}" for one in known if one.effect == "wrong"]
            raise RunFailure(failure.failure_class, failure.message + "".join(reasons)) from failure

    @property
    def rounding(self) -> str:
        recipe, dtype = self.subject.quantization, self.subject.dtype
        return max(dtype, (recipe and recipe.compute_dtype) or dtype, key=UNIT_ROUNDOFF.__getitem__)

    @contextlib.contextmanager
    def stamped(self, clock: TokenClock, workload: Workload) -> Iterator[dict[str, Any]]:
        """IPEX's own beam search calls no stopping criteria. For it, a hook before each pass of the model
        but the first stamps the token of the step before, and the return of `generate` stamps the last
        token."""
        if not self._has_own_beam_search(workload):
            with super().stamped(clock, workload) as arguments:
                yield arguments
            return
        passes = count()

        def before_pass(*_: object) -> None:
            if next(passes) > 0:
                clock.stamp()

        hook = self.model.register_forward_pre_hook(before_pass)
        try:
            yield {}
            clock.stamp()
        finally:
            hook.remove()

    def _has_own_beam_search(self, workload: Workload) -> bool:
        """Whether IPEX searches by a loop of its own instead of transformers'."""
        return (
            self.subject.device == "xpu"
            and self.optimized
            and workload.num_beams > 1
            and workload.cache == "static"
        )

    def _arguments(self, input_ids: torch.Tensor, workload: Workload, **more: Any) -> dict[str, Any]:
        arguments = super()._arguments(input_ids, workload, **more)
        if self._has_own_beam_search(workload):
            arguments["eos_token_id"] = NO_TOKEN
        return arguments

    def to_optimize(self, model: Any) -> Any:
        """The object that `ipex.llm.optimize` gets: the model on its device."""
        return model

    @contextlib.contextmanager
    def plain_config(self) -> Iterator[None]:
        """The model's config as the plain model needs it."""
        yield

    def optimize(self) -> None:
        """Optimizes; RunFailure `unsupported` when that left a part of the model as it was."""
        ipex = import_ipex()
        subject = self.subject
        model = self.model.eval().to(subject.device).to(memory_format=torch.channels_last)
        self.model, self.blocks = model, len(decoder_blocks(model))
        dtype = getattr(torch, subject.dtype)
        with self.plain_config():
            self.plain = ask(self)
        try:
            if ipex_options(subject).ipex_optimize:
                more = {}
                # The CPU's optimizer takes another kind of configuration and finds the INT4 layers itself.
                if subject.quantization is not None and subject.device == "xpu":
                    more["quantization_config"] = model.quantization_config
                optimized = ipex.llm.optimize(
                    self.to_optimize(model), dtype=dtype, device=subject.device, inplace=True, **more
                )
                model = getattr(optimized, "module", optimized)
            else:
                model = ipex.optimize(model, dtype=dtype, inplace=True)
        except RuntimeError as error:
            if "re-install IPEX" in str(error):
                raise UserError(f"this build of IPEX has no {subject.device}; {INSTALL}") from error
            raise
        except AssertionError as error:
            # IPEX asserts what it needs of the processor.
            if "cpu support" not in str(error):
                raise
            message = (
                f"IPEX computes no {subject.dtype} on this CPU ({first_line(error)}); try --dtype float32"
            )
            raise RunFailure("unsupported", message) from error
        self.model = model
        self.optimized_blocks = optimized_blocks(model, subject.device, self.blocks)
        self.optimized = ipex_options(subject).ipex_optimize and self.optimized_blocks == self.blocks > 0
        if (
            ipex_options(subject).ipex_optimize
            and not self.optimized
            and not ipex_options(subject).allow_unoptimized
        ):
            raise RunFailure(
                "unsupported",
                f"IPEX left {type(model).__name__} unoptimized ({self.optimized_blocks} of {self.blocks} "
                "decoder blocks are its own); measure it so with --allow-unoptimized, or without --ipex",
            )
        super().optimize()

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        dtype = getattr(torch, self.subject.dtype)
        autocast = torch.autocast(
            self.subject.device, dtype=dtype, enabled=self.autocast and dtype != torch.float32
        )
        with super().inference(), autocast:
            yield

    @property
    def autocast(self) -> bool:
        """Whether the model runs under `torch.autocast`; float32 has nothing to cast to."""
        return ipex_options(self.subject).autocast and self.subject.dtype != "float32"

    def check_cache(self, workload: Workload, cache: Any) -> None:
        """Does nothing, because the optimized layers keep a cache of their own, which the type of the
        returned cache does not tell."""

    @cached_property
    def scores_rows_alone(self) -> bool:
        """False, because the traced graph is the whole model."""
        return False

    def doubts_of_kernel(self) -> list[str]:
        return []

    def described(self) -> dict[str, Any]:
        return super().described() | {
            "ipex_optimized": self.optimized,
            "decoder_blocks": self.blocks,
            "optimized_blocks": self.optimized_blocks,
            "autocast": self.autocast,
            "environment": environment(),
            "compute_engine": compute_engine(),
        }


def _optimizes_on_xpu(subject: Subject) -> bool:
    return subject.device == "xpu" and ipex_options(subject).ipex_optimize


def _check_xpu(subject: Subject) -> None:
    """UserError for what IPEX's optimized layers lack or refuse on xpu."""
    for name in XPU_IMPORTS:
        if find_spec(name) is None:
            raise UserError(f"ipex.llm.optimize imports {name}, which is not installed; pip install {name}")
    if subject.dtype != XPU_DTYPE:
        raise UserError(
            f"IPEX's optimized layers compute in {XPU_DTYPE} alone on xpu, not in {subject.dtype}; give "
            f"--dtype {XPU_DTYPE}, or --disable_optimize_transformers"
        )


def defects_here(subject: Subject, model_type: str | None, workload: Workload | None = None) -> list[Defect]:
    """The known defects of IPEX that a run meets on this GPU."""
    if not _optimizes_on_xpu(subject):
        return []
    return known_defects(subject, model_type, workload, torch.xpu.has_2d_block_array())


def refuse_known(subject: Subject, model_type: str | None, workload: Workload | None = None) -> None:
    """RunFailure `unsupported` for a run that would end in IPEX's own code."""
    for one in defects_here(subject, model_type, workload):
        if one.effect == "fails":
            raise RunFailure("unsupported", one.text)


def set_environment() -> None:
    """Sets the variables that the stack needs, unless the user did, and removes those that it forbids."""
    for name, value in NEEDED_VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in FORBIDDEN_VARIABLES:
        os.environ.pop(name, None)


def environment() -> dict[str, str | None]:
    """The present values of those variables; None is not set."""
    return {name: os.environ.get(name) for name in (*NEEDED_VARIABLES, *FORBIDDEN_VARIABLES)}


def import_ipex() -> Any:
    """The IPEX module; UserError when it is missing or does not fit the installed torch."""
    try:
        import intel_extension_for_pytorch as ipex
    except ModuleNotFoundError as error:
        if error.name == "intel_extension_for_pytorch":
            raise UserError(f"IPEX is not installed; {INSTALL}") from error
        raise UserError(f"IPEX does not import ({error}); {INSTALL}") from error
    except (Exception, SystemExit) as error:  # a misfit ends in whatever its own error handling raises
        raise UserError(
            f"IPEX {_version('intel_extension_for_pytorch')} does not fit torch {_version('torch')} and "
            f"transformers {_version('transformers')}; {INSTALL}"
        ) from error
    return ipex


def decoder_blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of the model's body: the longest list of modules in it."""
    lists = [list(one) for one in model.modules() if isinstance(one, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def optimized_blocks(model: torch.nn.Module, device: str, blocks: int) -> int:
    """How many decoder blocks `ipex.llm.optimize` made its own. On the CPU it traces the whole model, on xpu
    it replaces each block by a class of its own; a model that it does not know comes back as it was."""
    if device == "cpu":
        return blocks if hasattr(model, "trace_graph") else 0
    return sum(type(block).__module__.startswith(XPU_LAYERS) for block in decoder_blocks(model))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
