"""The snippets of docs/library-hq.md print what the guide says that they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).parents[2] / "docs" / "library-hq.md").read_text(encoding="utf-8")
MARK = "--- next snippet ---"


def test_each_snippet_prints_what_the_guide_says(tmp_path: Path) -> None:
    """One program, in the order of the guide; a snippet may use what those before it have made."""
    snippets = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", GUIDE, re.DOTALL)
    assert len(snippets) == GUIDE.count("```python"), "each snippet is followed by what it prints"
    program = f"\nprint({MARK!r})\n".join(code for code, _ in snippets)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(f"{MARK}\n") == [printed for _, printed in snippets]


def test_importing_the_package_loads_none_of_it() -> None:
    program = "import sys, hq; print([name for name in sys.modules if name.startswith(('hq.', 'storelink', 'click'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_each_public_name_is_there() -> None:
    import hq

    assert {name for name in hq.__all__ if not isinstance(getattr(hq, name), type)} == set()
