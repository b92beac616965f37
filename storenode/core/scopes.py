"""What a store follows: its configured scopes, read into streams and into an order of precedence.

A scope is named alone (`zone-west`: every context in that scope) or with its context (`price/zone-west`).
Scopes are listed from the widest to the most specific; the most specific one wins in the read model. An entry whose
context is not declared is passed over and reported; the rest goes on.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from storelink.contract.contexts import Contexts
from storelink.contract.errors import ContractViolation
from storelink.contract.limits import STATUS_STREAMS_MAX
from storelink.contract.streams import SCOPE_ALL, Stream, check_stream_name, checked_name


def checked_scopes(entries: Sequence[str], contexts: Contexts) -> tuple[str, ...]:
    """Return the entries if they can be followed. Raises ContractViolation otherwise."""
    if not entries:
        raise ContractViolation("bad_scopes", "name at least one scope", field="scopes")
    for entry in entries:
        if "/" in entry:
            check_stream_name(entry)
        else:
            checked_name(entry, "scope")
    named = [str(stream) for entry in entries for stream in _streams_of(entry, contexts)]
    if len(named) > STATUS_STREAMS_MAX:
        problem = f"they make {len(named)} streams; a status names at most {STATUS_STREAMS_MAX}"
        raise ContractViolation("bad_scopes", problem, field="scopes")
    twice = sorted({stream for stream in named if named.count(stream) > 1})
    if twice:
        raise ContractViolation("bad_scopes", f"{', '.join(twice)} is named twice", field="scopes")
    order = list(scope_ranks(entries))
    if SCOPE_ALL in order[1:]:
        raise ContractViolation("bad_scopes", f"{SCOPE_ALL!r} is the widest scope and comes first", field="scopes")
    return tuple(entries)


def followed_streams(entries: Sequence[str], contexts: Contexts) -> tuple[Stream, ...]:
    """The streams of checked entries, in their order."""
    return tuple(stream for entry in entries for stream in _streams_of(entry, contexts))


def undeclared(entries: Sequence[str], contexts: Contexts) -> Mapping[str, str]:
    """The contexts that checked entries name and nobody declared, each with what to say about it."""
    found = {}
    for entry in entries:
        context = entry.partition("/")[0]
        if "/" in entry and context not in contexts:
            close = difflib.get_close_matches(context, contexts, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            found[context] = f"scopes name {entry}, but {context} is not declared here{meant}"
    return found


def scope_ranks(entries: Sequence[str]) -> Mapping[str, int]:
    """Each scope's rank, by first mention; the highest wins."""
    scopes = dict.fromkeys(entry.rpartition("/")[2] for entry in entries)
    return {scope: rank for rank, scope in enumerate(scopes)}


def _streams_of(entry: str, contexts: Contexts) -> tuple[Stream, ...]:
    context, slash, scope = entry.partition("/")
    if slash:
        return (Stream(contexts[context], scope),) if context in contexts else ()
    return tuple(Stream(context, entry) for context in contexts.values())
