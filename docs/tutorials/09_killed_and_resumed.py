"""
A fit that is killed and resumed
================================

The same lines start a fit and go on with it: after a kill, run them again. The model is the same bit by bit as that of
a fit that was left alone.
"""

# %%
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

folder = Path(tempfile.mkdtemp())
script = folder / "fit.py"
script.write_text(
    textwrap.dedent(
        """
        import sys

        from tabdiff import DiffusionGenerator
        from tabdiff.datasets import load_penguins
        from tabdiff.training import Checkpoint, CSVLog

        run = sys.argv[1]
        gen = DiffusionGenerator(
            max_steps=500,
            batch_size=128,
            random_state=0,
            callbacks=[Checkpoint(run, every=25, unit="steps", keep=3), CSVLog(f"{run}/log.csv")],
        )
        gen.fit(load_penguins(), resume_from=run)
        gen.save(f"{run}/model")
        """
    )
)

# %%
# Kill it
# -------
# A process of its own is ended without a warning (SIGKILL) when it has trained for a while.
run = folder / "killed"
process = subprocess.Popen([sys.executable, script, run])
deadline = time.monotonic() + 60
while process.poll() is None and len(list(run.glob("checkpoint-*"))) < 3 and time.monotonic() < deadline:
    time.sleep(0.05)
process.kill()
process.wait()
sorted(path.name for path in run.iterdir())

# %%
# Run it again
# ------------
subprocess.run([sys.executable, script, run], check=True)
undisturbed = folder / "undisturbed"
subprocess.run([sys.executable, script, undisturbed], check=True)

from tabdiff import DiffusionGenerator

killed, whole = (DiffusionGenerator.load(path / "model") for path in (run, undisturbed))
print("the same rows for the same seed:", killed.sample(100, random_state=1).equals(whole.sample(100, random_state=1)))

# %%
# The log goes on where it stood, and the two losses lie on each other.
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name, style in (("undisturbed", "-"), ("killed", "--")):
    log = pd.read_csv(folder / name / "log.csv").drop_duplicates("step", keep="last")
    ax.plot(log["step"], log["loss"], style, label=name)
ax.set(xlabel="step", ylabel="loss")
ax.legend(frameon=False)
