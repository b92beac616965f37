"""Registries of contexts, and the files that declare them."""

from __future__ import annotations

from pathlib import Path

from storelink.contract.contexts import BUILT_IN, Contexts
from storelink.contract.declared import parse

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "contexts.toml"

TAX = """
[[context]]
name = "tax"
table = "taxes"
keys = [{ name = "tax_class" }]
values = [{ name = "rate_bp", kind = "integer", min = 0, max = 10000, required = true }]
"""

WIDER_TAX = TAX.rstrip("]\n") + ', { name = "label" }, { name = "reduced", kind = "boolean", default = false }]\n'


def registry_of(text: str) -> Contexts:
    """The built-in contexts and those that a file of this text declares."""
    return BUILT_IN.with_declared(parse(text))
