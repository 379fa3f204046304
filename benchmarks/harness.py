"""What benchmarks share: the data folder, the machine, versions, arguments, JSON lines, child processes, markdown."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
MODELS = HERE / "models"


def data_loader() -> Any:
    """Import load.py of the folder that TABDIFF_DATA names."""
    folder = os.environ.get("TABDIFF_DATA")
    if not folder:
        raise FileNotFoundError("TABDIFF_DATA is unset; give it a folder with load.py and its tables")
    path = Path(folder) / "load.py"
    if not path.is_file():
        raise FileNotFoundError(f"TABDIFF_DATA={folder} has no load.py; give the folder that holds it and its tables")
    spec = importlib.util.spec_from_file_location("tabdiff_data_load", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def device() -> str:
    """Where a fit with default settings runs: "cuda" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> dict[str, Any]:
    """Number of cores, processor and GPU."""
    import torch

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1] for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].strip() if names else processor
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cores": os.cpu_count(), "processor": processor, "gpu": gpu}


def versions(*names: str) -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """Commit of this source tree, with "-dirty" where files differ from it; None outside a git checkout."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance(*packages: str) -> dict[str, Any]:
    """What a line of results was made with: machine, revision, and versions where packages are named."""
    found = {"machine": machine(), "revision": revision()}
    return {**found, "versions": versions(*packages)} if packages else found


def measured(*packages: str) -> dict[str, Any]:
    """When and with what rows were measured, which may be later and with other code than they were drawn with."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"measured": today, "measured_with": versions(*packages), "measured_revision": revision()}


def n_weights(denoiser: Any) -> int:
    """Number of weights of a denoiser's network."""
    return sum(p.numel() for p in denoiser.network.parameters())


def names(text: str) -> list[str]:
    """Split an argument at its commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def add_run_arguments(
    parser: argparse.ArgumentParser, results: Path, seeds: Sequence[int] = (), threads: int = 1
) -> argparse._MutuallyExclusiveGroup:
    """Add what every script asks for that runs what is missing from its results: seeds, threads, results, table.

    Without default seeds there is no --seeds. Returns the group of --table, for a script that has other modes.
    """
    if seeds:
        parser.add_argument("--seeds", type=lambda text: [int(s) for s in names(text)], default=list(seeds))
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--results", type=Path, default=results)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--table", action="store_true", help="print the tables of what has been run and stop")
    return modes


def read_results(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write_result(path: Path, row: dict[str, Any], key: Callable[[dict[str, Any]], tuple]) -> None:
    """Append a row, in place of an earlier one with the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_results(path)
    if any(key(old) == key(row) for old in rows):
        text = "".join(json.dumps(row if key(old) == key(row) else old) + "\n" for old in rows)
        draft = path.with_suffix(".tmp")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    else:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def run_child(
    python: str, arguments: Sequence[str], *, threads: int, timeout: float, tree: Path = HERE.parent
) -> str | None:
    """Run a script in a process of its own, on so many threads; None if it went well, else what went wrong.

    The package that it imports is that of `tree`.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    # A source tree that is not installed is found in the child as it is here.
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(tree), environment.get("PYTHONPATH")) if p)
    try:
        done = subprocess.run(
            [python, *arguments], env=environment, stderr=subprocess.PIPE, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {timeout:.0f} s"
    if done.returncode == 0:
        return None
    print(done.stderr, file=sys.stderr)
    lines = done.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"exit status {done.returncode}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|---" * len(header) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
