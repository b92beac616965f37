"""The acts: small deterministic pieces of work with the product's own classes on real files, played by `stage`.

An act can be played again after it was cut off, and goes on from what it finds, as the daemons do. It says what it was
told is done: `position`s that are committed, entries that are `acked`, sets that are `committed`. Errors of ours are
said (`error`), with a pause in which the parent reads; then it stops as the daemon would, or types the command again.
"""

from __future__ import annotations

from tests.faults.damage import examine
from tests.faults.desk import age, backing_up, master, ready_for_restore, restoring, upgrade, way_back
from tests.faults.replicas import bootstrap, checkpoint, heal, live, setting_aside, wear
from tests.faults.selling import selling

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
    "restoring",
    "selling",
    "setting_aside",
    "upgrade",
    "way_back",
    "wear",
]
