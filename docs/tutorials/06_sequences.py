"""
Sequences: promoters
====================

Strings over an alphabet, of one or many lengths, with a condition. Active promoters have a TATA box.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

from tabdiff import DiffusionGenerator

rng = np.random.default_rng(0)
active = rng.random(1000) < 0.5
strings = ["".join(rng.choice(list("ACGT"), size=rng.integers(8, 13))) for _ in active]
strings = [s[:2] + "TATA" + s[6:] if a else s for s, a in zip(strings, active)]
kinds = np.where(active, "active", "silent")
strings[:5], kinds[:5]

# %%
# A list of strings goes in, and lists of strings come out. A transformer is the default network; a small one will do.
gen = DiffusionGenerator(max_steps=300, batch_size=64, hidden_size=48, n_blocks=2, learning_rate=3e-3, random_state=0)
gen.fit(strings, kinds)
drawn = {kind: gen.sample(300, condition=kind, random_state=0) for kind in ("active", "silent")}
drawn["active"][:5]


# %%
# How often each letter stands at each place, real and drawn:
def shares(sequences):
    return np.array([[np.mean([s[i] == letter for s in sequences]) for i in range(8)] for letter in "ACGT"])


fig, axes = plt.subplots(2, 2, figsize=(8, 4), sharex=True, sharey=True, layout="constrained")
for row, kind in zip(axes, drawn):
    real = [s for s, k in zip(strings, kinds) if k == kind]
    for ax, (title, sequences) in zip(row, {"real": real, "drawn": drawn[kind]}.items()):
        picture = ax.imshow(shares(sequences), vmin=0, vmax=1, cmap="viridis", aspect="auto")
        ax.set(title=f"{kind}, {title}", yticks=range(4), yticklabels=list("ACGT"), xticks=range(8))
fig.colorbar(picture, ax=axes, label="share")

# %%
# Lengths come out as they went in:
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
lengths = np.arange(8, 13)
for shift, (title, some) in zip((-0.2, 0.2), {"real": strings, "drawn": drawn["active"] + drawn["silent"]}.items()):
    ax.bar(lengths + shift, [np.mean([len(s) == n for s in some]) for n in lengths], 0.4, label=title)
ax.set(xlabel="length", ylabel="share")
ax.legend(frameon=False)
