"""Learn from single cells, draw new ones by type, and compare their genes with the real ones.

Run it: python examples/quickstart_cells.py   (about a minute)
"""

import numpy as np

from tabdiff import DiffusionGenerator
from tabdiff.datasets import load_pbmc68k_counts


def main() -> None:
    adata = load_pbmc68k_counts()  # any AnnData with counts in X, raw or layers["counts"]
    print(adata, end="\n\n")

    gen = DiffusionGenerator(random_state=0, verbose=1)
    gen.fit(adata, condition="bulk_labels")
    print(gen.conditions_)

    b_cells = gen.sample(300, condition="CD19+ B")
    print(f"\n{b_cells}\n{type(b_cells.X).__name__} of {b_cells.X.dtype}, labels {set(b_cells.obs['bulk_labels'])}")

    real = adata[adata.obs["bulk_labels"] == "CD19+ B"]
    print("\nmean counts of marker genes of B cells (CD79A, CD74) and monocytes (LYZ, S100A9): real, drawn")
    for gene in ("CD79A", "CD74", "LYZ", "S100A9"):
        print(f"  {gene:8s}{np.mean(real[:, gene].X):8.2f}{np.mean(b_cells[:, gene].X):8.2f}")

    mixture = gen.sample(condition={"bulk_labels": {"CD14+ Monocyte": 200, "CD56+ NK": 100}})
    print(f"\nexact counts: {mixture.obs['bulk_labels'].value_counts()[lambda n: n > 0].to_dict()}")


if __name__ == "__main__":
    main()
