"""Why a price is what it is, read from a replica: what competed, what won and why, and where each line came from."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from storelink.contract.contexts import PRICE
from storelink.contract.precedence import OVERRIDE, RULE, Candidate, Line, candidates, in_force_since
from storelink.contract.schedule import load
from storelink.contract.times import rfc3339
from storenode.core.overrides import Override
from storenode.errors import NotFound
from storenode.replica.file import Source, reading
from storenode.replica.overrides import read
from storenode.replica.provenance import commit_of
from storenode.replica.queries import price_now_ms
from storenode.replica.schema import OWN


def explain(path: Source, sku: str, at_s: int | None) -> dict[str, Any]:
    """
    Explain why SKU costs what it costs at `at_s` (seconds since 1970; None: now).

    Returns:
        `{"sku", "at", "rule", "price", "effective_at", "candidates", "held"}`; see the operating guide for the keys.

    Raises:
        NotFound: the replica has no price line of that SKU at all.
    """
    at = price_now_ms(path) // 1000 if at_s is None else at_s
    with reading(path) as db:
        lines = [
            Line(scope, rank, kind, currency, load(text), seq)
            for scope, rank, kind, currency, text, seq in db.execute(
                f"SELECT t.scope, s.rank, t.kind, t.currency, t.schedule, t.seq FROM {PRICE.table} AS t"
                " JOIN scopes AS s ON s.scope = t.scope WHERE t.sku = ?",
                (sku,),
            )
        ]
        if not lines:
            raise NotFound(f"no price line of {sku} in this replica", hint="is it fresh? storenode status")
        own = [each for each in read(db) if each.sku == sku]
        explained = [_candidate(db, each, own) for each in candidates(lines, at)]
        held = _held(db, sku)
    won = next((each for each in explained if each["won"]), None)
    names = ("amount_minor", "currency", "kind", "scope", "starts_at", "ends_at")
    return {
        "sku": sku,
        "at": rfc3339(at * 1000),
        "rule": RULE,
        "price": {"sku": sku} | {name: won[name] for name in names} if won else None,
        "effective_at": _effective(in_force_since(lines, at), won["commit"] if won else None),
        "candidates": explained,
        "held": held,
    }


def _candidate(db: sqlite3.Connection, each: Candidate, own: list[Override]) -> dict[str, Any]:
    line, step = each.line, each.step
    local = line.kind == OVERRIDE
    stream = None if local else f"{PRICE.name}/{line.scope}"
    found: dict[str, Any] = {
        "amount_minor": step.amount_minor,
        "currency": line.currency,
        "kind": line.kind,
        "scope": line.scope.lstrip(OWN),
        "starts_at": rfc3339(step.starts_at * 1000),
        "ends_at": None if step.ends_at is None else rfc3339(step.ends_at * 1000),
        "in_force": each.in_force,
        "won": each.won,
        "why": each.why,
        "stream": stream,
        "seq": line.seq,
    }
    if stream is None:
        behind = next((o for o in own if (o.starts_at, o.ends_at) == (step.starts_at, step.ends_at)), None)
        return found | {"commit": None, "override": _own(behind) if behind else None}
    return found | {"commit": _commit(db, stream, line.seq), "override": None}


def _held(db: sqlite3.Connection, sku: str) -> list[dict[str, Any]]:
    """Newer versions of the SKU's lines that break a rule and are in quarantine, not served."""
    keys = [json.dumps([sku, kind]) for kind in PRICE.keys[1].choices]
    rows = db.execute(
        f"SELECT stream, key, seq, reason, at_ms FROM quarantine WHERE key IN ({', '.join('?' * len(keys))})"
        " AND stream LIKE ? ORDER BY stream, key",
        (*keys, f"{PRICE.name}/%"),
    )
    return [
        {"stream": stream, "kind": json.loads(key)[1], "seq": seq, "reason": reason, "at": _time(at_ms)}
        for stream, key, seq, reason, at_ms in rows
    ]


def _commit(db: sqlite3.Connection, stream: str, seq: int) -> dict[str, Any] | None:
    found = commit_of(db, stream, seq)
    if found is None:
        return None
    return {
        key.removesuffix("_ms"): value if not key.endswith("_ms") or value is None else _time(int(str(value)))
        for key, value in found.items()
    }


def _own(each: Override) -> dict[str, Any]:
    return {
        "reason": each.reason,
        "set_at": _time(each.set_at_ms),
        "until": rfc3339(each.until * 1000),
        "seq": each.seq,
        "ended_early": each.ends_at < each.until,
    }


def _effective(since_s: int | None, commit: dict[str, Any] | None) -> str | None:
    """A price began to hold here when its time came, or when it was applied, whichever was later."""
    if since_s is None:
        return None
    begun = rfc3339(since_s * 1000)
    return max(begun, commit["applied_at"]) if commit and commit["applied_at"][:19] > begun[:19] else begun


def _time(ms: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return f"{rfc3339(ms)[:-1]}.{ms % 1000:03}Z"
