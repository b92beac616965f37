"""How an outbox stands, for `storenode status`, the doctor and the API: read-only, with the daemon dead or alive."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from storelink.host.sqlite import open_readonly
from storenode.outbox.file import check_outbox, standing_of

READ_TIMEOUT_S = 2.0


def outbox_status(path: Path) -> dict[str, Any]:
    """The `outbox` member of `storenode status --json`; nulls where the file cannot be read."""
    if not path.exists():
        return {"pending": 0, "oldest_age_seconds": None, "acked_seq": 0, "refused": 0}
    try:
        with closing(read_outbox(path)) as db:
            check_outbox(db, path)
            found = standing_of(db)
    except Exception:  # noqa: BLE001 - the replica's status is shown whatever the outbox's file is like
        return {"pending": None, "oldest_age_seconds": None, "acked_seq": None, "refused": None}
    age_s = None if found.oldest_at_ms is None else max(time.time_ns() // 1_000_000 - found.oldest_at_ms, 0) // 1000
    return {
        "pending": found.pending,
        "oldest_age_seconds": age_s,
        "acked_seq": found.acked_seq,
        "refused": found.refused,
    }


def read_outbox(path: Path) -> sqlite3.Connection:
    """A read-only connection. Raises sqlite3.Error."""
    return open_readonly(path, READ_TIMEOUT_S)
