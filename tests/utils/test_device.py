"""What a device tells of itself."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tabdiff.utils.device import peak_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_peak_grows_with_what_is_held():
    before = peak_memory(CPU)
    held = np.ones(int(before + 100) * 125_000)
    assert peak_memory(CPU) > before + 50 and held[0] == 1


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems tell of getrusage alone")
def test_the_peak_is_that_of_the_process_and_not_of_its_parent():
    held = np.ones(250_000_000)  # 2 GB
    code = "import torch; from tabdiff.utils.device import peak_memory; print(peak_memory(torch.device('cpu')))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(said.stdout) < 1500 < peak_memory(CPU) and held[0] == 1
