"""Settings as both programs read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from storelink.contract.contexts import Context
from storelink.contract.declared import parse
from storelink.contract.errors import ContractViolation


@dataclass(frozen=True, slots=True)
class Declarations:
    """The file of contexts that the chain declares itself, and what it says: settings differ where that does."""

    path: Path
    contexts: tuple[Context, ...]

    @classmethod
    def read(cls, path: Path) -> Declarations:
        """Read the file. Raises ValueError that names it and lists every mistake."""
        try:
            return cls(path, parse(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from error
        except ContractViolation as error:
            raise ValueError(f"{path}: {error.detail}") from error
