"""The registry of contexts, for tests that declare some of their own in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storelink.contract.contexts import BUILT_IN, CONTEXTS

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "contexts.toml"

TAX = """
[[context]]
name = "tax"
table = "taxes"
keys = [{ name = "tax_class" }]
values = [{ name = "rate_bp", kind = "integer", min = 0, max = 10000, required = true }]
"""

WIDER_TAX = TAX.rstrip("]\n") + ', { name = "label" }, { name = "reduced", kind = "boolean", default = false }]\n'


def forget() -> None:
    """Only the built-in contexts are known, as in a process that has just begun."""
    CONTEXTS.__init__(BUILT_IN)  # type: ignore[misc]


@contextmanager
def forgotten_afterwards() -> Iterator[None]:
    """Leave no trace for other tests of this process."""
    forget()
    try:
        yield
    finally:
        forget()
