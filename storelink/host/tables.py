"""sqlite-utils over a connection of ours, imported when tables are made: a reader's start would double with it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database


def database(connection: sqlite3.Connection) -> Database:
    """The connection's schema, to be read and changed; no plugin of whoever else is installed has a part in it."""
    from sqlite_utils import Database

    return Database(connection, execute_plugins=False)
