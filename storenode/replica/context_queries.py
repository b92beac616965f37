"""What the commands read of declared contexts: rows found by their words."""

from __future__ import annotations

from typing import Any

from storelink.contract.contexts import Context
from storenode.errors import BadArgument, NotFound
from storenode.replica.contexts import RESTART, columns_of
from storenode.replica.queries import Source, query_of, reading


def search(path: Source, context: Context, text: str, limit: int) -> list[dict[str, Any]]:
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
        columns = columns_of(db, context)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (f"{context.table}_search",)).fetchone() is None:
            raise NotFound(f"this replica has no index of {context.name} yet", hint=RESTART)
        found = db.execute(
            f"SELECT t.scope, {', '.join('t.' + name for name in columns)}"
            f" FROM {context.table}_search(?) AS f JOIN {context.table} AS t ON t.rowid = f.rowid"
            f" WHERE t.rowid = (SELECT other.rowid FROM {context.table} AS other JOIN scopes USING (scope)"
            f" WHERE {same} ORDER BY scopes.rank DESC LIMIT 1) ORDER BY f.rank LIMIT ?",
            (query, limit),
        ).fetchall()
    return [dict(zip(("scope", *columns), row, strict=True)) for row in found]
