"""Files with a given text, and reading them where nothing may be warned of."""

import warnings
from pathlib import Path

import pandas as pd

from tabdiff.io.data_files import read_data


def write_text(folder: Path, text: str, name: str = "t.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def read_silently(path: Path, **options: object) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_data(path, **options)
