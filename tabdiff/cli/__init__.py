"""The command line."""

from tabdiff.cli.main import main

__all__ = ["main"]
