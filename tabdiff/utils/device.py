"""Which device and which precision a fit uses."""

import sys
from pathlib import Path

import torch

__all__ = ["autocast_dtype", "peak_memory", "resolve_device", "sampling_dtype"]

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device for a name; "auto" is CUDA where there is one, and the CPU elsewhere.

    Raises
    ------
    ValueError
        If the name is no device or the device is not there.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto' or a torch device such as 'cpu' or 'cuda:0', got {device!r}"
        ) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r} was asked for, but torch sees no CUDA device; use device='auto' or 'cpu'")
    return resolved


def peak_memory(device: torch.device) -> float:
    """Return the most memory used so far, in MB: of a GPU what torch took, and else of the whole process.

    0 on Windows, which does not tell without another library.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return 0.0
    if (status := Path("/proc/self/status")).is_file():
        # Of getrusage the peak begins with that of the process that started this one.
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024 / 1e6
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def cpu_multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16 (AVX-512 BF16 or AMX)."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def cuda_dtype(capability: tuple[int, int], is_rocm: bool = False) -> torch.dtype | None:
    """Return the type that a GPU multiplies fastest beside float32, by its compute capability.

    From 8.0 on (Ampere, 2020) tensor cores multiply bfloat16, which has the range of float32. Those of 7.x (V100, T4)
    know float16 alone: bfloat16 is emulated there, which torch nevertheless calls supported. Before 7.0 there are no
    tensor cores, and most chips multiply float16 slower than float32. AMD's chips that torch runs on have bfloat16.
    """
    if capability >= (8, 0) or is_rocm:
        return torch.bfloat16
    return torch.float16 if capability >= (7, 0) else None


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that matrix products run in, None for float32.

    "auto" is bfloat16 where the hardware multiplies it: on CUDA devices and CPUs (AVX-512 BF16, AMX) that do, a step of
    training then takes less than half the time. On CUDA devices with tensor cores for float16 alone it is float16; see
    `cuda_dtype`. Elsewhere it is float32.

    Raises
    ------
    ValueError
        If the name is unknown, or it is "float16" and the device is no CUDA device.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {', '.join(map(repr, PRECISIONS[:-1]))} or 'float16'; got {precision!r}.")
    if precision == "float16" and device.type != "cuda":
        raise ValueError(
            f"precision must be 'auto', 'float32' or 'bfloat16' on the device {str(device)!r}; got 'float16', which is "
            "for CUDA devices. Use precision='bfloat16', which takes as little memory, or precision='auto'."
        )
    if precision == "auto" and device.type == "cuda":
        return cuda_dtype(torch.cuda.get_device_capability(device), torch.version.hip is not None)
    if precision == "auto":
        return torch.bfloat16 if device.type == "cpu" and cpu_multiplies_bfloat16() else None
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)


def sampling_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that a fitted model's products run in: a model of float16 draws in float32 without a GPU."""
    if precision == "float16" and device.type != "cuda":
        return None
    return autocast_dtype(precision, device)
