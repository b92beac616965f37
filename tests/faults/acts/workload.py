"""The acts: small deterministic pieces of work with the product's own classes on real files, played by `stage`.

An act can be played again after it was cut off, and goes on from what it finds, as the daemons do. It says what it was
told is done: `position`s that are committed, entries that are `acked`, sets that are `committed`. Errors of ours are
said (`error`), with a pause in which the parent reads; then it stops as the daemon would, or types the command again.
"""

from __future__ import annotations

from tests.faults.acts.damage import examine
from tests.faults.acts.precious import age, backing_up, master, ready_for_restore, restoring, upgrade, upstream
from tests.faults.acts.replicas import bootstrap, checkpoint, heal, live, replacing_damaged, wear
from tests.faults.acts.selling import selling

__all__ = [
    "age",
    "backing_up",
    "bootstrap",
    "checkpoint",
    "examine",
    "heal",
    "live",
    "master",
    "ready_for_restore",
    "replacing_damaged",
    "restoring",
    "selling",
    "upgrade",
    "upstream",
    "wear",
]
