"""Learn promoters of two kinds and draw new ones; then ask for numbers in words.

Run it: python examples/quickstart_sequences.py
"""

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from tabdiff import DiffusionGenerator


def promoters(n: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Strings of 8 to 12 letters; the active ones have a TATA box."""
    active = rng.random(n) < 0.5
    strings = ["".join(rng.choice(list("ACGT"), size=rng.integers(8, 13))) for _ in range(n)]
    strings = [s[:2] + "TATA" + s[6:] if a else s for s, a in zip(strings, active, strict=True)]
    return strings, np.where(active, "active", "silent")


def main() -> None:
    rng = np.random.default_rng(0)
    strings, kinds = promoters(1000, rng)

    # A list of strings is sequences; the transformer is their default network.
    gen = DiffusionGenerator(
        max_steps=500, batch_size=64, hidden_size=48, n_blocks=2, learning_rate=3e-3, random_state=0
    )
    gen.fit(strings, kinds)
    drawn = gen.sample(200, condition="active")
    print(gen.schema_.to_string(index=False))
    print(f"five active promoters: {drawn[:5]}")
    share = np.mean([s[2:6] == "TATA" for s in drawn])
    print(f"with a TATA box: {share:.0%} of the drawn active ones, 100% of the real ones")
    print(f"lengths: real {sorted({len(s) for s in strings})}, drawn {sorted({len(s) for s in drawn})}\n")

    # Conditions that are text: any function from texts to vectors will do.
    words = ["one", "two", "three", "four"]
    value = rng.integers(4, size=1000)
    texts = np.array([f"about {words[v]}" if rng.random() < 0.5 else f"it is {words[v]}" for v in value], dtype=object)
    rows = value[:, None] + 1 + 0.1 * rng.normal(size=(1000, 1))
    encode = make_pipeline(TfidfVectorizer(), TruncatedSVD(5, random_state=0)).fit(texts).transform
    spoken = DiffusionGenerator(text_encoder=encode, max_steps=300, hidden_size=32, random_state=0).fit(rows, texts)
    for asked in ("it is two", "could you give me three"):
        print(f"{asked!r}: {spoken.sample(200, condition=asked).mean():.1f} on average")


if __name__ == "__main__":
    main()
