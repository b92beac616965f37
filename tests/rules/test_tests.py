"""The rules for tests and installations: where a unit test lives, what is installed, and what it depends on."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IMPORTED_AS = {"paho-mqtt": "paho", "sqlite-utils": "sqlite_utils"}


def test_a_unit_test_file_is_named_after_the_module_that_it_tests() -> None:
    """`tests/unit/a/b/test_c.py` or `test_c_topic.py` tests `a/b/c.py`, or the folder `a/b/c`."""
    for path in UNIT.rglob("test_*.py"):
        folder, name = ROOT / path.parent.relative_to(UNIT), path.stem.removeprefix("test_")
        modules = {each.stem for each in folder.glob("*") if each.suffix == ".py" or each.is_dir()}
        assert any(name == module or name.startswith(f"{module}_") for module in modules), path.relative_to(ROOT)


def test_an_installation_has_the_three_packages_and_no_test_bed() -> None:
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    folders = {path.name for path in ROOT.iterdir() if any(path.glob("*.py"))}
    installed = {name for name in folders if any(fnmatch(name, pattern) for pattern in patterns)}
    assert installed == {"storelink", "hq", "storenode"}
    assert {"bench", "testbed"} < folders


def test_every_dependency_is_imported_by_the_programs() -> None:
    """What only tests and measurements import belongs to the extra `dev`."""
    files = [path for name in ("storelink", "hq", "storenode") for path in (ROOT / name).rglob("*.py")]
    sources = [path.read_text(encoding="utf-8") for path in files]
    for requirement in PROJECT["project"]["dependencies"]:
        name = requirement.partition(">")[0]
        module = IMPORTED_AS.get(name, name)
        assert any(re.search(rf"^\s*(import|from) {module}\b", text, re.MULTILINE) for text in sources), name
