"""Learn from a table with missing values, draw new rows, ask for some kinds, fill what is missing, score, save, load.

Run it: python examples/quickstart_table.py
"""

import tempfile

from tabdiff import DiffusionGenerator, evaluate
from tabdiff.datasets import load_penguins


def main() -> None:
    penguins = load_penguins()  # any DataFrame: numbers, categories, strings, booleans, missing values
    print(penguins.head(), end="\n\n")

    gen = DiffusionGenerator(max_steps=400, random_state=0, verbose=1)
    gen.fit(penguins, condition=["species", "sex"])

    synthetic = gen.sample(len(penguins))
    print(f"\n{len(synthetic)} new rows, with the same columns and dtypes:\n{synthetic.head()}\n")

    gentoo = gen.sample(200, condition={"species": "Gentoo"})  # sex is drawn as it occurs among Gentoos
    real = penguins[penguins["species"] == "Gentoo"]
    print(f"body mass of Gentoos: real {real['body_mass_g'].mean():.0f} g, drawn {gentoo['body_mass_g'].mean():.0f} g")
    exact = gen.sample(condition={"species": {"Adelie": 2, "Chinstrap": 1}})
    print(f"exact counts: {exact['species'].to_list()}\n")
    print(evaluate(penguins, synthetic))  # .to_html("report.html") writes a page

    joint = DiffusionGenerator(max_steps=400, random_state=0).fit(penguins)  # nothing declared: any column can be given
    dream = joint.sample(100, condition={"island": "Dream"})
    print(f"\nspecies on Dream: {dream['species'].value_counts().to_dict()}")
    filled = joint.impute(penguins)
    print(f"missing values: {int(penguins.isna().sum().sum())}, after impute: {int(filled.isna().sum().sum())}")

    with tempfile.TemporaryDirectory() as folder:
        gen.save(f"{folder}/penguins.model")  # config.json and model.safetensors, no code
        again = DiffusionGenerator.load(f"{folder}/penguins.model")
        same = again.sample(5, random_state=1).equals(gen.sample(5, random_state=1))
    print(f"\nthe loaded model draws the same rows for the same seed: {same}")


if __name__ == "__main__":
    main()
