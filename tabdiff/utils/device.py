"""Which device and which precision a fit uses."""

import sys

import torch

__all__ = ["autocast_dtype", "peak_memory", "resolve_device"]


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
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def cpu_multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16 (AVX-512 BF16 or AMX)."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that matrix products run in, None for float32.

    "auto" is bfloat16 where the hardware multiplies it: on CUDA devices and CPUs (AVX-512 BF16, AMX) that do, a step of
    training then takes less than half the time. Elsewhere it is float32.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', got {precision!r}")
    if precision == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported()
        else:
            fast = device.type == "cpu" and cpu_multiplies_bfloat16()
        return torch.bfloat16 if fast else None
    return torch.bfloat16 if precision == "bfloat16" else None
