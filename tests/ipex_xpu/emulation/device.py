"""The emulated device: storages on the CPU that are marked as the xpu's, seen through a mode of torch.

A `TorchFunctionMode` sees every call of a torch function from Python. It asks the CPU for what a call asks
of xpu, marks the storages of what comes out, answers `.device`, copies on `.to`, and raises where the
tensors of a call lie on two devices. Views and parameters follow their storage. The operators of torch and
of IPEX see plain CPU tensors.
"""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from tests.ipex_xpu.emulation import autocast, faults
from tests.ipex_xpu.emulation.products import linear, product_of

CPU = torch.device("cpu")
# These take tensors of two devices on a real xpu too: they copy, or only look at metadata.
MIXES = frozenset(
    {
        *("copy_", "to", "type_as", "set_", "__set__", "__get__", "__delete__", "swap_tensors"),
        *("is_set_to", "__format__", "__repr__", "_has_compatible_shallow_copy_type"),
    }
)
# So many milliseconds pass until what was launched since the last wait is done, whatever it is.
LAG_VARIABLE = "XPU_EMULATION_LAG_MS"
INDEXES = frozenset({"__getitem__", "__setitem__", "index_put_", "index_put"})
MOVES = frozenset({"to", "cpu", "xpu", "cuda"})
HOST_READS = frozenset({"numpy", "__array__"})


class Marks:
    """The storages that lie on the emulated device, and how many bytes they hold."""

    def __init__(self) -> None:
        self._marked: dict[int, tuple[StorageWeakRef, int, int]] = {}
        self._purge_at = 4096
        self._peak_bytes = 0
        self._lock = threading.Lock()

    def index_of(self, tensor: torch.Tensor) -> int | None:
        """The index of the device that the tensor's storage lies on; None for the CPU."""
        found = self._marked.get(_key(tensor))
        return None if found is None or found[0].expired() else found[1]

    def add(self, tensor: torch.Tensor, index: int) -> None:
        """Puts the tensor's storage on the device; does nothing for meta tensors and marked storages."""
        if tensor.device.type != "cpu" or self.index_of(tensor) is not None:
            return
        key = _key(tensor)
        if key == 0:
            return
        with self._lock:
            if len(self._marked) > self._purge_at:
                self._purge()
            storage = tensor.untyped_storage()
            self._marked[key] = (StorageWeakRef(storage), index, storage.nbytes())

    def allocated_bytes(self) -> int:
        """The bytes of the storages that are alive."""
        with self._lock:
            total = sum(size for reference, _, size in self._marked.values() if not reference.expired())
            self._peak_bytes = max(self._peak_bytes, total)
        return total

    def peak_bytes(self) -> int:
        """The largest sum that was seen when somebody asked or the table was purged."""
        self.allocated_bytes()
        return self._peak_bytes

    def reset_peak(self) -> None:
        self._peak_bytes = 0
        self.allocated_bytes()

    def _purge(self) -> None:
        alive = {key: entry for key, entry in self._marked.items() if not entry[0].expired()}
        self._peak_bytes = max(self._peak_bytes, sum(size for _, _, size in alive.values()))
        self._marked = alive
        self._purge_at = max(4096, 2 * len(alive))


MARKS = Marks()


class Queue:
    """What the device was told to do and nobody has waited for. The results are there at once, but a wait
    for them takes its time, so that a stamp that was taken without one shows. Copies to the host do not
    wait: only `synchronize` counts."""

    def __init__(self) -> None:
        self._lag_s = float(os.environ.get(LAG_VARIABLE, 0)) / 1e3
        self._busy = False

    def launch(self) -> None:
        self._busy = True

    def wait(self) -> None:
        if self._busy and self._lag_s:
            time.sleep(self._lag_s)
        self._busy = False


QUEUE = Queue()


def is_xpu(tensor: torch.Tensor) -> bool:
    """Whether the tensor lies on the emulated device."""
    return MARKS.index_of(tensor) is not None


PRODUCTS = {"linear": linear, "matmul": product_of}


class EmulatedXpu(TorchFunctionMode):  # type: ignore[misc]  # torch is not typed here
    """The mode that makes the device; one for each thread, as torch keeps modes by thread."""

    def __init__(self) -> None:
        super().__init__()
        self._fault = faults.planted()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__" and (found := _attribute(func, args[0])) is not None:
            return found
        kwargs = dict(kwargs or {})
        inputs = [*_tensors(args), *_tensors(kwargs)]
        indexes = [MARKS.index_of(tensor) for tensor in inputs]
        on_xpu = next((index for index in indexes if index is not None), None)
        if on_xpu is not None and name in HOST_READS:
            raise TypeError(
                f"can't convert xpu:{on_xpu} device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        target, args, kwargs = _redirected(name, args, kwargs, on_xpu)
        if on_xpu is not None and target is None:
            _check_one_device(func, name, inputs, indexes)
            args, kwargs = autocast.cast(name, args, kwargs, is_xpu)
        result = (PRODUCTS.get(name, func) if on_xpu is not None else func)(*args, **kwargs)
        if on_xpu is not None:
            QUEUE.launch()
        if on_xpu is not None and self._fault is not None:
            result = self._fault(name, args, result)
        if name in MOVES and target is not None and isinstance(result, torch.Tensor):
            return _moved(args[0], result, target)
        place = _index(target) if target is not None else on_xpu
        if place is not None and name not in ("__set__", "swap_tensors"):
            for tensor in _tensors(result):
                MARKS.add(tensor, place)
        return result


def install() -> None:
    """Turns the device on in this thread and in every thread that starts later."""
    EmulatedXpu().__enter__()
    run = threading.Thread.run

    def run_with_device(self: threading.Thread) -> None:
        with EmulatedXpu():
            run(self)

    threading.Thread.run = run_with_device  # type: ignore[method-assign]


def _key(tensor: torch.Tensor) -> int:
    """What tells a storage from all others that are alive; 0 for tensors without one."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # sparse tensors, and wrappers without a storage
        return 0


def _attribute(func: Any, tensor: torch.Tensor) -> Any:
    """The answer to the attributes that tell the device; None for any other attribute."""
    what = getattr(getattr(func, "__self__", None), "__name__", "")
    if what not in ("device", "is_xpu", "is_cpu"):
        return None
    index = MARKS.index_of(tensor)
    if what == "is_xpu":
        return index is not None
    if what == "is_cpu":
        return tensor.device.type == "cpu" and index is None
    return None if index is None else torch.device("xpu", index)


def _redirected(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], on_xpu: int | None
) -> tuple[torch.device | None, tuple[Any, ...], dict[str, Any]]:
    """The device that a call asks for, None where it names none, and the call with the CPU in its place."""
    target = None
    if name == "cpu":
        return CPU, args, kwargs
    if name == "xpu":
        return torch.device("xpu", 0), (args[0], CPU), {}
    if name == "to":
        for at, value in enumerate(args[1:], 1):
            if isinstance(value, torch.Tensor):  # `to(other)`: the device and the dtype of another tensor
                index = MARKS.index_of(value)
                target = value.device if index is None else torch.device("xpu", index)
                break
            # A bare number is an index of the current accelerator.
            found = torch.device("xpu", value) if at == 1 and type(value) is int else _device(value)
            if found is not None:
                target = found
                args = (*args[:at], CPU if found.type == "xpu" else value, *args[at + 1 :])
                break
    if kwargs.get("device") is not None:
        value = kwargs["device"]
        target = torch.device("xpu", value) if type(value) is int else _device(value)
        if target is not None and target.type == "xpu":
            kwargs["device"] = CPU
    return target, args, kwargs


def _device(value: Any) -> torch.device | None:
    """The device that an argument means; None for what means no device."""
    if isinstance(value, torch.device):
        return value
    if isinstance(value, str):
        try:
            return torch.device(value)
        except RuntimeError:
            return None
    return None


def _index(target: torch.device) -> int | None:
    """The xpu's index; None for another device."""
    return (target.index or 0) if target.type == "xpu" else None


def _moved(source: torch.Tensor, result: torch.Tensor, target: torch.device) -> torch.Tensor:
    """What `.to` gives: a copy where the device changes, even where the CPU made none."""
    if result.device.type != "cpu":  # a meta tensor
        return result
    place = _index(target)
    if place != MARKS.index_of(source) and _key(result) == _key(source):
        result = result.clone(memory_format=torch.preserve_format)
    if place is not None:
        MARKS.add(result, place)
    return result


def _check_one_device(func: Any, name: str, inputs: list[torch.Tensor], indexes: list[int | None]) -> None:
    """RuntimeError, in torch's words, for a call over two devices. Numbers (tensors without dimensions) may
    come from the CPU, and so may the indexes of a tensor on xpu."""
    if name in MIXES:
        return
    if name in INDEXES:
        if indexes[0] is None and any(index is not None for index in indexes[1:]):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        return
    places = {
        "cpu" if index is None else f"xpu:{index}"
        for tensor, index in zip(inputs, indexes, strict=True)
        if index is not None or (tensor.dim() > 0 and tensor.device.type == "cpu")
    }
    if len(places) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(places, reverse=True))}! (emulated; in {name or func})"
        )


def _tensors(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """The tensors in an argument or a result, in lists, tuples and dictionaries too."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple) and depth < 3:
        for item in value:
            yield from _tensors(item, depth + 1)
    elif isinstance(value, dict) and depth < 3:
        for item in value.values():
            yield from _tensors(item, depth + 1)
