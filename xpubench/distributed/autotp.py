"""DeepSpeed as this harness uses it: the ranks' process group, and AutoTP's sharding."""

import contextlib
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from xpubench.catalog.architecture import head_shares
from xpubench.distributed.launch import INSTALL
from xpubench.distributed.rendezvous import RankGroup
from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.pytorch.random_cache import CACHE_ARGUMENT

BACKENDS = {"xpu": "xccl", "cuda": "nccl", "cpu": "gloo"}
AFFINITY = {"xpu": "ZE_AFFINITY_MASK", "cuda": "CUDA_VISIBLE_DEVICES"}
SHM_OPERATOR = "deepspeed_shm_comm"
SHM_FILES = "deepspeed_allreduce_buffer"
SHM = Path("/dev/shm")


def import_deepspeed(device: str) -> Any:
    """The DeepSpeed module, silent and set to the device; UserError where it does not import."""
    # DeepSpeed finds xpu by itself; where the variable names it, versions before 0.17 demand IPEX.
    if device != "xpu":
        os.environ.setdefault("DS_ACCELERATOR", device)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(f"DeepSpeed does not import ({error}); {INSTALL}") from error
    # It sets its own level when it is imported.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed


def check_backend(device: str) -> None:
    """UserError where this build of torch has no collectives for the device."""
    backend = BACKENDS[device]
    if not getattr(dist, f"is_{backend}_available", lambda: False)():
        raise UserError(f"this build of torch has no {backend}, which ranks on {device} need")


def device_index(job: RankGroup, device: str) -> int:
    """The index of this rank's device among those that it sees; UserError where there are too few."""
    if device == "cpu":
        return job.local_rank
    count = torch.get_device_module(device).device_count()
    if job.local_rank < count:
        return job.local_rank
    if count == 1 and os.environ.get(AFFINITY[device]):
        return 0
    local = sum(place.host == job.places[job.rank].host for place in job.places)
    raise UserError(
        f"{local} ranks on {job.places[job.rank].host}, which shows {count} {device} devices: start fewer "
        f"ranks a host (mpirun -ppn), or look at {AFFINITY[device]}"
    )


def check_devices(job: RankGroup, device: str) -> int:
    """The index of this rank's device, as `device_index` gives it. UserError on every rank where one of them
    lacks DeepSpeed, collectives for the device, or a device of its own."""

    def index_of_device() -> int:
        import_deepspeed(device)
        check_backend(device)
        return device_index(job, device)

    index = job.agreed(index_of_device)
    if device != "cpu":
        count = torch.get_device_module(device).device_count()
        _check_masks(job, device, job.gather(os.environ.get(AFFINITY[device]) if count == 1 else None))
    return index


def _check_masks(job: RankGroup, device: str, masks: list[str | None]) -> None:
    """UserError where two ranks of a host have the same mask; `masks` holds that of each rank to which its
    mask shows one device, and None for the others."""
    first: dict[tuple[str, str], int] = {}
    for place, mask in zip(job.places, masks, strict=True):
        if mask and (other := first.setdefault((place.host, mask), place.rank)) != place.rank:
            raise UserError(
                f"ranks {other} and {place.rank} share one {device} device: {AFFINITY[device]} is {mask} for "
                f"both on {place.host}; unset it, name a device for each rank, or start one rank a host"
            )


def check_shared_memory(job: RankGroup) -> None:
    """UserError where the ranks cannot sum through shared memory."""
    if not job.one_host:
        raise UserError("--shm is for ranks on one host; leave it out")
    lacking = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
    if lacking:
        raise UserError(f"--shm compiles DeepSpeed's all-reduce and needs {' and '.join(lacking)}")
    from torch.utils.cpp_extension import get_default_build_root

    root = os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()
    for lock in Path(root).glob(f"**/{SHM_OPERATOR}/lock"):
        raise UserError(f"{lock} belongs to a build that runs or was killed; if none runs, remove it")


def start(job: RankGroup, device: str, *, shared_memory: bool = False) -> None:
    """Makes the process group of all ranks on devices of that kind; a second call does nothing."""
    deepspeed = import_deepspeed(device)
    if dist.is_initialized():
        return
    index = device_index(job, device)
    # DeepSpeed chooses the device by this variable.
    os.environ["LOCAL_RANK"] = str(index)
    if device != "cpu":
        torch.get_device_module(device).set_device(index)
    deepspeed.ops.__compatible_ops__[SHM_OPERATOR] = shared_memory
    if shared_memory:
        # No MPI sets LOCAL_SIZE, and the initialization crashes unless both are equal.
        os.environ["LOCAL_SIZE"] = os.environ["WORLD_SIZE"]
        remove_buffers(job)
    backend, timeout = BACKENDS[device], job.timeout
    store = job.process_group_store()
    # DeepSpeed may compile its kernel for shared memory here, which is no wait for a rank.
    with job.deadline(hangs=backend != "gloo"):
        dist.init_process_group(backend, store=store, rank=job.rank, world_size=job.size, timeout=timeout)
        with muted():
            deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)
        # Without a barrier, a rank could sum into a buffer that another has not mapped yet.
        dist.barrier()
    if shared_memory:
        # All ranks have the buffers open, so that they are freed when the job ends in any way.
        remove_buffers(job)


def stop(job: RankGroup) -> None:
    """Leaves the process group. A process that does not can crash when it ends."""
    if dist.is_initialized():
        with job.deadline(hangs=dist.get_backend() != "gloo"):
            dist.barrier()
            dist.destroy_process_group()


def remove_buffers(job: RankGroup) -> None:
    """Deletes the files of this job's all-reduce buffers, 66 MB for each rank, because DeepSpeed never
    deletes them. Left behind, they would give a later job with the same port wrong sums."""
    if job.rank == 0:
        names = f"{SHM_FILES}_{os.getuid()}_{os.environ['MASTER_ADDR']}_{os.environ['MASTER_PORT']}_*"
        for path in SHM.glob(names):
            path.unlink(missing_ok=True)
    job.gather(None)


def shard(model: Any, dtype: torch.dtype, device: str) -> Any:
    """Returns DeepSpeed's engine around the model. In the engine's `module`, AutoTP's layers, which hold
    this rank's part, have replaced the model's own; weights that were on the meta device have
    uninitialized memory of the part's size on the device. Generate with the module: the engine refuses
    beams and long prompts."""
    size = dist.get_world_size()
    deepspeed = import_deepspeed(device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    all_ranks = SimpleNamespace(
        get_model_parallel_group=lambda: dist.group.WORLD,
        get_model_parallel_world_size=dist.get_world_size,
        get_model_parallel_rank=dist.get_rank,
    )
    parallel = {"tp_size": size, "tp_group": dist.group.WORLD, "mpu": all_ranks}
    with muted():
        engine = deepspeed.init_inference(
            model, tensor_parallel=parallel, dtype=dtype, replace_with_kernel_inject=False
        )
    sharded = engine.module
    # DeepSpeed leaves the buffers of a model on the meta device uninitialized too.
    for name, buffer in sharded.named_buffers():
        if name in buffers and buffer.shape == buffers[name].shape:
            buffer.copy_(buffers[name])
    return engine


def tell_config(model: Any, rank: int, size: int) -> None:
    """Writes this rank's number of heads into the model's config, which some attentions and the static caches
    take their shapes from."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    config.num_attention_heads, own_kv_heads = head_shares(heads, kv_heads, size)[rank]
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = own_kv_heads


def keep_mask(model: Any) -> None:
    """Gives a model with ALiBi (Bloom) an attention mask at each step. Without a mask, transformers makes the
    biases of all heads; with one, DeepSpeed makes those of this rank's heads."""
    body = model.base_model
    if not hasattr(body, "build_alibi_tensor"):
        return

    def with_mask(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if named.get("attention_mask") is not None:
            return None
        input_ids = named["input_ids"] if "input_ids" in named else arguments[0]
        batch, length = input_ids.shape
        cache = named.get(CACHE_ARGUMENT)
        positions = length if cache is None else cache.get_mask_sizes(length, 0)[0]
        mask = torch.ones(batch, positions, dtype=torch.int64, device=input_ids.device)
        return arguments, named | {"attention_mask": mask}

    body.register_forward_pre_hook(with_mask, with_kwargs=True)


def check_sharded(model: Any, size: int) -> None:
    """RunFailure `unsupported` where AutoTP did not shard the model."""
    if size > 1 and not any(hasattr(module, "mp_group") for module in model.modules()):
        raise RunFailure("unsupported", "AutoTP does not shard this model: every rank would hold all of it")


@contextlib.contextmanager
def muted() -> Any:
    """Drops what DeepSpeed prints on every rank."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
