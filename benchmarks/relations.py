"""Exact rules between columns: how many drawn rows keep each, of a table whose rules are known.

Orders of a shop, made here: a city has a country and that a currency, a product has a category and a price; the total
is the sum of goods and delivery, boxes are those of two sizes; no parcel leaves before its order, and none has left
where the status says "open"; exactly one of three ways of paying has a value, and only members have points. Every
training row keeps every rule. No system is told of any, but "tabdiff, declared" is of the sums and the order.

    python benchmarks/relations.py                    # what is missing from results/relations.jsonl
    python benchmarks/relations.py --systems arf --peers-python peers/bin/python
    python benchmarks/relations.py --table            # print the table, run nothing
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from harness import (
    HERE,
    RESULTS,
    add_run_arguments,
    device,
    markdown,
    names,
    provenance,
    read_results,
    run_child,
    write_result,
)
from peers import PEERS, TRAINED

FILE = RESULTS / "relations.jsonl"
REFERENCES = ("fresh", "bootstrap", "independent")
SYSTEMS = (*REFERENCES, "tabdiff", "tabdiff_declared", "copula", "smote", *PEERS)
DEFAULT = (*REFERENCES, "tabdiff", "tabdiff_declared", "copula", "smote")
DECLARED = ("total = goods + delivery", "boxes = small_boxes + large_boxes", "ordered <= shipped")
SHOWN = {
    "fresh": "fresh rows of the source",
    "bootstrap": "bootstrap of the training rows",
    "independent": "independent columns",
    "tabdiff_declared": "tabdiff, declared",
}
CENT, WAYS = 0.005, ("card_fee", "voucher", "invoice_days")


def make_table(n: int, seed: int) -> pd.DataFrame:
    """Orders (n rows) that keep every rule of RULES."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    country_of, price_of = world.integers(0, 8, 40), np.round(world.lognormal(3, 0.7, 25), 2)
    city = rng.choice(40, size=n, p=1 / np.arange(1, 41) / (1 / np.arange(1, 41)).sum())
    product = rng.integers(0, 25, n)
    country = country_of[city]
    quantity = 1 + rng.poisson(1.5, n)
    goods = np.round(price_of[product] * quantity * rng.uniform(0.85, 1, n), 2)
    delivery = np.where(goods > 120, 0, rng.choice([3.99, 6.99, 12.49], size=n, p=[0.6, 0.3, 0.1]))
    small, large = rng.poisson(quantity / 2), rng.poisson(quantity / 4)
    ordered = rng.integers(0, 365, n)
    status = np.where(rng.random(n) < 0.15, "open", np.where(rng.random(n) < 0.8, "shipped", "returned"))
    shipped = np.where(status == "open", np.nan, ordered + rng.poisson(3, n))
    way = rng.choice(3, size=n, p=[0.6, 0.15, 0.25])
    member = rng.random(n) < 0.4
    return pd.DataFrame(
        {
            "city": [f"city {i}" for i in city],
            "country": [f"country {i}" for i in country],
            "currency": np.array(["EUR", "USD", "GBP", "CHF"])[country % 4],
            "product": [f"product {i}" for i in product],
            "category": [f"category {i}" for i in product % 5],
            "list_price": price_of[product],
            "quantity": quantity,
            "goods": goods,
            "delivery": delivery,
            "total": np.round(goods + delivery, 2),
            "small_boxes": small,
            "large_boxes": large,
            "boxes": small + large,
            "status": status,
            "ordered": ordered,
            "shipped": shipped,
            "card_fee": np.where(way == 0, np.round(goods * 0.01, 2), np.nan),
            "voucher": np.where(way == 1, rng.choice([10.0, 20.0, 50.0], n), np.nan),
            "invoice_days": np.where(way == 2, rng.choice([14.0, 30.0], n), np.nan),
            "member": np.where(member, "yes", "no"),
            "points": np.where(member, rng.poisson(goods), 0),
        }
    )


def determines(*columns: str) -> Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]:
    """Whether the last column has the value that goes with the first in training."""
    first, last = columns

    def keeps(rows: pd.DataFrame, train: pd.DataFrame) -> np.ndarray:
        known = train.drop_duplicates(first).set_index(first)[last]
        expected = rows[first].map(known)
        if pd.api.types.is_numeric_dtype(train[last]):
            return ((rows[last] - expected.astype(float)).abs() < CENT).to_numpy()
        return (rows[last].astype(str) == expected.astype(str)).to_numpy()

    return keeps


def adds_up(total: str, *parts: str) -> Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]:
    """Whether the total is the sum of its parts, all rounded to cents."""
    return lambda rows, _: (rows[total].round(2) - rows[list(parts)].round(2).sum(axis=1)).abs().to_numpy() < CENT


RULES: dict[str, dict[str, Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]]] = {
    "dependencies": {
        "city → country": determines("city", "country"),
        "country → currency": determines("country", "currency"),
        "product → category": determines("product", "category"),
        "product → price": determines("product", "list_price"),
    },
    "sums and order": {
        "total = goods + delivery": adds_up("total", "goods", "delivery"),
        "boxes = small + large": adds_up("boxes", "small_boxes", "large_boxes"),
        "ordered ≤ shipped": lambda rows, _: ~(rows["shipped"].round() < rows["ordered"].round()).to_numpy(),
    },
    "exclusivities": {
        "one way of paying": lambda rows, _: (rows[list(WAYS)].notna().sum(axis=1) == 1).to_numpy(),
        "open ⇔ not shipped": lambda rows, _: ((rows["status"] == "open") == rows["shipped"].isna()).to_numpy(),
        "no member, no points": lambda rows, _: ~((rows["member"] == "no") & (rows["points"].round() > 0)).to_numpy(),
    },
}


def measure(rows: pd.DataFrame, train: pd.DataFrame) -> dict[str, float]:
    """Percent of rows that keep each rule, all of a kind, and all."""
    kept = {name: keeps(rows, train) for rules in RULES.values() for name, keeps in rules.items()}
    report = {name: 100 * float(found.mean()) for name, found in kept.items()}
    for kind, rules in RULES.items():
        report[kind] = 100 * float(np.all([kept[name] for name in rules], axis=0).mean())
    return report | {"all": 100 * float(np.all(list(kept.values()), axis=0).mean())}


def key(row: dict[str, Any]) -> tuple:
    return tuple(row[k] for k in ("system", "rows", "seed", "device", "max_time"))


def run(row: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    train = make_table(row["rows"], row["seed"])
    if row["system"] == "fresh":
        return {**row, **measure(make_table(row["rows"], row["seed"] + 1000), train)}
    if row["system"] == "bootstrap":
        return {**row, **measure(train.sample(len(train), replace=True, random_state=row["seed"]), train)}
    if row["system"] == "independent":
        from tabdiff.evaluation import independent_columns

        return {**row, **measure(independent_columns(train, random_state=row["seed"]), train)}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "train.feather"), Path(folder, "rows.feather")
        train.to_feather(source)
        system, declared = row["system"].removesuffix("_declared"), row["system"].endswith("_declared")
        command = [str(HERE / "peers.py"), "--system", system, "--input", str(source), "--output", str(output)]
        command += ["--n", str(len(train)), "--seed", str(row["seed"]), "--threads", str(args.threads)]
        command += [] if row["max_time"] is None else ["--max-time", str(row["max_time"])]
        command += ["--constraints", *DECLARED] if declared else []
        python = args.peers_python if system in PEERS else sys.executable
        error = run_child(python, command, threads=args.threads, timeout=3 * args.max_time + 600)
        if error is not None:
            return {**row, "failed": error}
        report = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
        return {**row, **measure(pd.read_feather(output), train), "threads": args.threads, **provenance(), **report}


def print_table(rows: list[dict[str, Any]]) -> None:
    for part in [[*RULES, "all"], *map(list, RULES.values())]:
        lines = []
        for r in sorted(rows, key=lambda r: SYSTEMS.index(r["system"])):
            if "failed" not in r:
                took = [f"{r['fit_seconds'] + r['sample_seconds']:.0f}"] if "fit_seconds" in r else [""]
                took += [f"{r['cpu_seconds']:.0f}" if "cpu_seconds" in r else ""]
                lines.append([SHOWN.get(r["system"], r["system"]), *(f"{r[name]:.1f}" for name in part), *took])
        print("\n".join(markdown(["rows that keep the rules, %", *part, "seconds", "of CPU"], lines)), end="\n\n")
    for r in rows:
        if "failed" in r:
            print(f"{r['system']} failed: {r['failed']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", type=names, default=list(DEFAULT), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--max-time", type=float, default=3600.0, help="seconds of training at most")
    parser.add_argument("--peers-python", help="interpreter of an environment with the systems of peers.py")
    add_run_arguments(parser, FILE, [0])
    args = parser.parse_args()
    unknown = [s for s in args.systems if s not in SYSTEMS]
    if unknown:
        parser.error(f"unknown systems {unknown}; there are {', '.join(SYSTEMS)}")
    if not args.table:
        done = {key(row) for row in read_results(args.results)}
        for seed in args.seeds:
            for system in args.systems:
                trained = system.removesuffix("_declared") in TRAINED
                row = {"system": system, "rows": args.rows, "seed": seed, "device": device() if trained else "cpu"}
                row["max_time"] = args.max_time if trained else None
                if key(row) in done:
                    continue
                if system in PEERS and args.peers_python is None:
                    print(f"{system}: not run: it needs --peers-python", file=sys.stderr)
                    continue
                row = run(row, args)
                write_result(args.results, row, key)
                print(system, row.get("failed") or f"{row['all']:.1f} % keep all", flush=True)
    print_table(read_results(args.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
