"""A CUDA device that is not there, to find what would make a GPU and its host wait for each other.

Within `FakeCuda` tensors of the device "cuda" have shapes and no values, and those of the CPU are real. What a GPU
waits for shows itself on any machine: a value that goes to Python (``item``, ``bool``, ``nonzero``), a copy between
host and device (also of one number, and of a list that is an index). None of them can be captured in a CUDA graph.
"""

from __future__ import annotations

import copy
import ctypes
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda", 0)
# Their results, or the sizes of these, depend on values.
WAITS = (
    "_local_scalar_dense",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "repeat_interleave.Tensor",
    "unique",
)
# One number on the host goes into the launch of any other kernel.
COPIES = ("_to_copy", "copy", "index", "lift", "masked_scatter", "where")


def device_guards() -> Any:
    """Return torch's table of what sets the present device, by type: CUDA's is empty in a build without it."""
    for path in (Path(torch.__file__).parent / "lib").glob("*c10.*"):
        try:
            return (ctypes.c_void_p * 20).in_dll(ctypes.CDLL(str(path)), "_ZN3c104impl26device_guard_impl_registryE")
        except (OSError, ValueError):
            continue
    pytest.skip("this build of torch does not let a device be faked")


class FakeGenerator(torch.Generator):
    """A generator that says it is on the GPU."""

    @property
    def device(self) -> torch.device:
        return DEVICE


class FakeCuda(FakeTensorMode):
    """Gives fake tensors on a GPU, and keeps what makes it wait.

    Attributes
    ----------
    waits : list of str
        What was called, and the line of the package that called it.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits: list[str] = []
        self._guards = device_guards()

    def __deepcopy__(self, memo: Any) -> Any:
        return self  # its tensors are copied, not what they live in

    def __enter__(self) -> Any:
        # Indexing asks for the guard of a device before anything else; that of "meta" does nothing.
        self._before = self._guards[1]
        self._guards[1] = self._before or self._guards[14]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._guards[1] = self._before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {t.device.type for t in tensors}
        named = func.name().removeprefix("aten::")
        faked = any(isinstance(t, FakeTensor) for t in tensors)
        if not faked and torch.device(kwargs.get("device") or "cpu").type != "cuda":
            return func(*args, **kwargs)  # on the host alone
        if any(named.startswith(name) for name in WAITS):
            raise AssertionError(f"a value of the GPU is read: {self._found(named)}")
        # The fused optimisers change their arguments, and torch knows no fake of them.
        fused = named.startswith("_fused_adam")
        out = None if fused else super().__torch_dispatch__(func, types, args, kwargs)
        made = {t.device.type for t in tree_leaves(out) if isinstance(t, torch.Tensor)}
        made |= {"cuda"} if fused else set()
        large = any(t.dim() for t in tensors if t.device.type == "cpu")
        copies = any(named.removeprefix("_").startswith(name.removeprefix("_")) for name in COPIES)
        if "cuda" in devices and "cpu" in made:
            self.waits.append(f"copied to the host: {self._found(named)}")
        elif "cpu" in devices and "cuda" in made and (large or copies or "cuda" not in devices):
            self.waits.append(f"copied to the GPU: {self._found(named)}")
        elif named.startswith("lift"):
            self.waits.append(f"made on the host: {self._found(named)}")
        return out

    @staticmethod
    def _found(name: str) -> str:
        frames = [f for f in traceback.extract_stack() if "/tabdiff/" in f.filename]
        if not frames:
            return name
        return f"{name} in {frames[-1].filename.split('/tabdiff/')[-1]}:{frames[-1].lineno} {frames[-1].line}"


def to_fake(thing: Any) -> Any:
    """Return the same with every tensor on the GPU; within `FakeCuda`. Modules are copied, and need no gradients."""
    if isinstance(thing, nn.Module):
        # Autograd asks for a real device where a graph begins.
        module = copy.deepcopy(thing).requires_grad_(False)
        for part in module.modules():
            for values in (part._parameters, part._buffers):
                for name, value in values.items():
                    if value is not None:
                        fake = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
                        values[name] = nn.Parameter(fake, False) if values is part._parameters else fake
        return module
    return tree_map_only(torch.Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device=DEVICE), thing)
