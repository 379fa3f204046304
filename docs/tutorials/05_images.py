"""
Images: digits
==============

A U-Net for 8 × 8 digits: drawn by class, with a half given, and enlarged.
"""

# %%
# The settings keep this page quick; leave them out for good pictures, which take minutes on a CPU.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from tabdiff import DiffusionGenerator

digits = load_digits()
images = digits.images / 16
gen = DiffusionGenerator(max_steps=250, hidden_size=16, n_blocks=1, batch_size=64, random_state=0)
gen.fit(images, digits.target)

# %%
# By class
# --------
# Each row is one class, with real digits at the left.
fig, axes = plt.subplots(5, 10, figsize=(8, 4.2), layout="constrained")
for digit, row in enumerate(axes):
    real = images[digits.target == digit][:4]
    drawn = gen.sample(6, condition=digit, guidance_scale=1.5, steps=20, random_state=digit)
    for ax, image in zip(row, [*real, *drawn]):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color("#CCCCCC")
axes[0, 1].set_title("real", loc="left")
axes[0, 5].set_title("drawn", loc="left")

# %%
# With a half given
# -----------------
# Visible pixels stay exactly as they are; several draws show what the model holds possible.
missing = np.arange(64).reshape(8, 8) % 8 > 3
half = np.where(missing, 0.5, images[:3])
filled = gen.impute(images[:3], mask=missing, n_draws=4, steps=20, random_state=0)
fig, axes = plt.subplots(3, 6, figsize=(6, 3.2), layout="constrained")
for i, row in enumerate(axes):
    for ax, image in zip(row, [images[i], half[i], *(draw[i] for draw in filled)]):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
for ax, title in zip(axes[0], ("real", "given", "drawn")):
    ax.set_title(title)

# %%
# 4 × 4 to 8 × 8
# --------------
small = images[:6].reshape(6, 4, 2, 4, 2).mean(axis=(2, 4))
large = gen.super_resolve(small, steps=20, random_state=0)
fig, axes = plt.subplots(3, 6, figsize=(6, 3.2), layout="constrained")
for row, pictures, title in zip(axes, (small, large, images), ("given", "drawn", "real")):
    for ax, image in zip(row, pictures):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(title)
