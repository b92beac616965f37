"""Checks that a file is a complete backup of a replica: its schema, its pages, its rows. It may come from anywhere.

Nothing in the file runs: the schema is compared first, and whatever is not ours is refused by name. Then the rows are
checked: each value is of its column's kind, each row is in a scope that is followed, the rows are what HQ announced,
and the store's own prices are those that the table `overrides` gives.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from storelink.contract.contexts import BUILT_IN, Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.rows import decode_rows
from storelink.contract.streams import Stream
from storelink.host.schema_check import header_in, listed, misfit, objects_of
from storenode.core.overrides import price_lines
from storenode.errors import BackupUnsound, StorenodeError
from storenode.replica import schema, verify
from storenode.replica.file import reading, translated
from storenode.replica.overrides import read
from storenode.replica.verify import schema_differences

ROWS_PER_PART = 5_000
RESTORE_HINT = "restore a file that this version's storenode backup made; or start the daemon, which fetches a new one"

_FOLLOWED = "SELECT stream FROM streams UNION ALL SELECT stream FROM unfollowed_streams"
_encode = msgspec.json.Encoder().encode


def check(path: Path, contexts: Contexts, called: Path | None = None) -> dict[str, int]:
    """
    Prove a backup that nobody else uses: the positions of its streams.

    Args:
        called: the file's name for people, if `path` is a copy of it.

    Raises:
        BackupUnsound: not a replica, of another version, with another schema, damaged, never complete, or with other
            rows than a replica has.
    """
    name = called or path
    try:
        with translated(path):
            _check_schema(path, name)
            with reading(path) as db:
                _check_pages(db, name)
                _check_rows(db, name)
                followed = [stream for (stream,) in db.execute(_FOLLOWED)]
            known = [Stream.parse(each, contexts) for each in followed if each.partition("/")[0] in contexts]
            scans = [verify.scan(path, stream) for stream in known]
            for scan in scans:
                if not scan.ok:
                    raise BackupUnsound(f"{name}: the rows of {scan.stream} are not HQ's", hint="storenode verify")
            with reading(path) as db:
                _check_rules(db, known, name)
    except BackupUnsound:
        raise
    except StorenodeError as error:
        raise BackupUnsound(f"{name} cannot be read as a backup: {error}", hint=RESTORE_HINT) from error
    except (ContractViolation, ValueError, TypeError, RecursionError) as error:
        raise BackupUnsound(f"{name} holds what no replica holds: {str(error)[:200]}", hint=RESTORE_HINT) from error
    if not any(scan.epoch for scan in scans):
        raise BackupUnsound(f"{name} has never been complete", hint="is it live? storenode status")
    return {str(scan.stream): scan.position for scan in scans if scan.epoch}


def _check_schema(path: Path, name: Path) -> None:
    header = header_in(path)
    if header["application_id"] != schema.APPLICATION_ID:
        raise BackupUnsound(f"{name} is not a replica", hint="ls the directory that backup_dir names")
    if header["user_version"] != schema.VERSION:
        raise BackupUnsound(
            f"{name} is of version {header['user_version']}; this storenode restores version {schema.VERSION}",
            hint="restore it with the storenode that made it; or start the daemon, which fetches a new replica",
            differences=["user_version"],
        )
    try:
        said = schema_differences(path)
    except sqlite3.DatabaseError as error:
        raise BackupUnsound(f"SQLite cannot read the schema of {name}: {error}", hint=RESTORE_HINT) from error
    if said:
        raise BackupUnsound(
            f"{name} is not made as this storenode makes a replica: {listed(said)}", hint=RESTORE_HINT, differences=said
        )


def _check_pages(db: sqlite3.Connection, name: Path) -> None:
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise BackupUnsound(f"{name} is damaged: {found}")


def _check_rows(db: sqlite3.Connection, name: Path) -> None:
    """Check that each table holds only what a replica can hold; the scans compare the rows with HQ's digest."""
    problem = misfit(db, objects_of(db)) or _foreign_rows(db) or _forged_overrides(db)
    if db.execute("SELECT 1 FROM streams WHERE coalesce(min(position, head_seq), -1) < 0").fetchone():
        problem = "a stream at a position below 0"
    if problem:
        raise BackupUnsound(f"{name} holds what no replica holds: {problem}", hint=RESTORE_HINT)


def _foreign_rows(db: sqlite3.Connection) -> str | None:
    """Name rows that belong to no stream: no verification would look at them, and no rebuild would remove them."""
    followed = [each.partition("/") for (each,) in db.execute(_FOLLOWED)]
    tables = {context.name: context.table for context in BUILT_IN.values()}
    tables |= db.execute("SELECT name, table_name FROM contexts WHERE table_name IS NOT NULL").fetchall()
    for context, table in tables.items():
        scopes = {scope for each, _, scope in followed if each == context}
        for (scope,) in db.execute(f"SELECT DISTINCT scope FROM {table}"):
            if scope not in scopes and not (table == "prices" and scope.startswith(schema.OWN)):
                return f"table {table} has rows of the scope {scope[:64]!r}, which is not followed"
    return None


def _forged_overrides(db: sqlite3.Connection) -> str | None:
    """Name a scope that ranks above all others, or prices in it that no override made."""
    high = db.execute("SELECT scope, rank FROM scopes WHERE rank >= ? OR rank IS NULL", (schema.OWN_RANK,)).fetchall()
    own = [scope for scope, rank in high if rank == schema.OWN_RANK and scope.startswith(schema.OWN)]
    if len(own) != len(high) or len(own) > 1:
        return f"scope {high[-1][0][:64]!r} ranks above what is followed"
    columns = "scope, sku, kind, currency, schedule, seq"
    there = db.execute(
        f"SELECT {columns} FROM prices WHERE substr(scope, 1, 1) = ? ORDER BY sku", (schema.OWN,)
    ).fetchall()
    made = price_lines(read(db), own[0] if own else schema.OWN)
    if there != made:
        skus = {line[1] for line in set(there) ^ set(made)}
        return f"prices of the store's own that no override made: {', '.join(sorted(map(str, skus))[:5])[:200]}"
    return None


def _check_rules(db: sqlite3.Connection, streams: list[Stream], name: Path) -> None:
    """Check that HQ may send such rows. The rules of a declared context may have changed since; they do not count."""
    for stream in streams:
        if not stream.context.is_built_in:
            continue
        rows = db.execute(verify.scan_sql(stream.context, stream.context.columns), (stream.scope,))
        for some in _in_parts(rows):
            try:
                decode_rows(stream.context, msgspec.Raw(_encode(some)), msgspec.Raw(b"[]"))
            except ContractViolation as violation:
                problem = f"{name} holds rows of {stream} that HQ cannot have sent: {violation.detail[:200]}"
                raise BackupUnsound(problem, hint=RESTORE_HINT) from violation


def _in_parts(rows: sqlite3.Cursor) -> Iterator[list[tuple[object, ...]]]:
    while part := list(islice(rows, ROWS_PER_PART)):
        yield part
