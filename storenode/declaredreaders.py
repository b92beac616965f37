"""What the commands read of declared contexts: rows found by their words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract.contexts import Context
from storenode.errors import BadArgument
from storenode.readers import query_of, reading


def search(path: Path, context: Context, text: str, limit: int) -> list[dict[str, Any]]:
    """
    Rows in whose searchable columns every word of `text` begins a word, the best matches first.

    Of an entity that stands in several scopes only the most specific one's row counts. Raises BadArgument if the
    declaration names no columns to search.
    """
    if not context.search:
        raise BadArgument(f"{context.name} has no column to search", hint="declare them: search = [...]")
    query = query_of(text)
    if not query:
        return []
    same = " AND ".join(f"other.{name} = t.{name}" for name in context.key_names)
    with reading(path) as db:
        found = db.execute(
            f"SELECT t.scope, {', '.join('t.' + name for name in context.columns)}"
            f" FROM {context.table}_search(?) AS f JOIN {context.table} AS t ON t.rowid = f.rowid"
            f" WHERE t.rowid = (SELECT other.rowid FROM {context.table} AS other JOIN scopes USING (scope)"
            f" WHERE {same} ORDER BY scopes.rank DESC LIMIT 1) ORDER BY f.rank LIMIT ?",
            (query, limit),
        ).fetchall()
    return [dict(zip(("scope", *context.columns), row, strict=True)) for row in found]
