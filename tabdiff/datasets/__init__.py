"""Small real data sets that need no download."""

from tabdiff.datasets.loaders import load_pbmc68k_counts, load_penguins

__all__ = ["load_pbmc68k_counts", "load_penguins"]
