"""A fit as each process of a group runs it: ``torchrun world_fit.py OUT CASE``."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from tabdiff import DiffusionGenerator
from tabdiff.training import Checkpoint, TrainingOptions


def frame(n=1500):
    rng = np.random.default_rng(0)
    out = pd.DataFrame({"x": rng.normal(size=n), "k": rng.choice(list("abc"), n)})
    return out.assign(y=2 * out["x"] + rng.normal(size=n))


def main(out, case):
    out = Path(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if dist.is_initialized() else 0
    data, resume, callbacks = frame(), None, []
    settings = {"max_steps": 200, "hidden_size": 32, "n_blocks": 1, "random_state": 0, "precision": "float32"}
    settings |= {"refine": False, "batch_size": 255}
    if case == "learned":  # times that learn, clipping, accumulation
        options = TrainingOptions(times="loss_aware", accumulation_steps=2, clip_grad_norm=0.5)
        settings |= {"max_steps": 60, "training": options, "early_stopping": True}
    if case == "lake":
        data = out / "lake"
    if case == "short":
        callbacks = [Checkpoint(out / "checkpoints", every=60, unit="steps", keep=None)]
    if case == "rest":
        resume = sorted((out / "checkpoints").iterdir())[0]
    if case == "other" and rank == 1:
        data.loc[3, "x"] = 0.0
    if case == "dies":
        callbacks = [Checkpoint(out / "last", every=10, unit="steps")]
        if rank == dist.get_world_size() - 1:
            import tabdiff.training.loop as loop

            real, steps = loop.EMA.advance, []

            def advance(self):
                steps.append(1)
                if len(steps) == 30:
                    os._exit(9)
                real(self)

            loop.EMA.advance = advance
    if case == "fails":
        settings["constraints"] = ["x <= y"]
    gen = DiffusionGenerator(**settings, callbacks=callbacks).fit(data, condition="k", resume_from=resume)
    weights = torch.cat([p.flatten() for p in gen.denoiser_.parameters()])
    world = dist.get_world_size() if dist.is_initialized() else 1
    found = {"history": gen.history_, "weights": weights, "drawn": gen.sample(5, random_state=0)}
    torch.save(found, out / f"{case}-{rank}-of-{world}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
