"""What importing the packages does to a process, seen from a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

LOOK = """
import json, sys, typing
before = dict(sys.modules)
import hq, storenode
changed = [name for name, module in before.items() if sys.modules.get(name) is not module]
added = sorted(set(sys.modules) - set(before))
import hq.daemon, storenode.daemon
imported = "structlog" in sys.modules
from storelink.host.logs import configure_logs
configure_logs()
print(json.dumps([changed, added, imported, "structlog" in sys.modules, "rich" in sys.modules]))
import rich
"""


def test_importing_the_packages_leaves_other_modules_alone_and_a_daemon_does_not_import_rich() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [[], ["hq", "storenode"], False, True, False]
