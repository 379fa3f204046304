"""CUDA graphs: a sequence of kernels that is recorded once and launched as one from then on.

The launch of a kernel takes a host some microseconds, whatever the kernel does; a step of a small network is hundreds
of them, and a GPU waits for each. A recorded graph is launched at once (Ng et al., "Accelerating PyTorch with CUDA
Graphs", 2021, https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/). What is recorded reads and writes the
same places of memory each time, reads no value back to the host and copies none from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["capture", "is_ours", "on_side_stream", "reason_of"]


def on_side_stream(function: Callable[[], None], device: torch.device) -> None:
    """Run a function on a stream of its own, as has to be done with what will be recorded before it is."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream(device).wait_stream(stream)


def capture(
    function: Callable[[], None], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Callable[[], None]:
    """Record what a function launches, without running it.

    Parameters
    ----------
    function : callable
        It has run before, so that nothing is set up during the recording.
    device : torch.device
        A CUDA device.
    generators : sequence of torch.Generator
        Those that it draws from, on that device. Each launch goes on with their numbers, as the function would.

    Returns
    -------
    callable
        Launches what was recorded.

    Raises
    ------
    RuntimeError
        If something cannot be recorded. The generators are as before, and so is the present stream.
    """
    present = torch.cuda.current_stream(device)
    graph = torch.cuda.CUDAGraph()
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        # Other threads may use the device meanwhile: their calls are not for this recording to forbid.
        stream = torch.cuda.Stream(device)
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            function()
    except BaseException:
        torch.cuda.set_stream(present)  # torch leaves its own where the end of a recording fails
        for generator, state in zip(generators, states, strict=True):
            # A recording that broke off leaves the state it worked on unusable.
            fresh = torch.Generator(device)
            fresh.set_state(state)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())
        raise
    replay: Callable[[], None] = graph.replay
    return replay


def is_ours(thing: Any) -> bool:
    """Return whether a function, or the class of an object, is of this package or of torch.

    What Python does in such a one may be recorded; that of others may count calls or draw numbers, which a launch of
    what was recorded does not repeat.

    Examples
    --------
    >>> is_ours(torch.nn.Linear(1, 1)), is_ours(print)
    (True, False)
    """
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0] in ("tabdiff", "torch")


def reason_of(error: BaseException) -> str:
    r"""Return the first line of what went wrong first, where the end of a recording fails for it too.

    Examples
    --------
    >>> reason_of(ValueError("too few\nof them"))
    'ValueError was raised (too few)'
    """
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__} was raised" + (f" ({lines[0]:.200})" if lines else "")
