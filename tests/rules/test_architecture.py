"""The rules that keep the house in shape: import layers, purity, what a module and a folder say of themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("storelink", "hq", "storenode")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})
FILES_MAX = 15
CLOCKS = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "datetime.now", "date.today"}
READ_THE_ENVIRONMENT = {"config.py", "process.py", "cli.py"}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def pure() -> list[Path]:
    return [p for p in MODULES if "core" in p.parts or p.is_relative_to(ROOT / "storelink" / "contract")]


def test_a_module_says_in_one_sentence_what_it_is() -> None:
    for path in MODULES:
        docstring = ast.get_docstring(parsed(path))
        assert docstring, f"{short(path)} has no docstring"
        assert docstring.splitlines()[0].endswith((".", ":")), f"{short(path)}: the first line is a sentence"


def test_a_folder_has_few_files() -> None:
    for folder in FOLDERS:
        assert len(list(folder.glob("*.py"))) <= FILES_MAX, f"{short(folder)}: make rooms by what they are about"


def test_a_folder_says_what_lives_there_and_what_it_may_import() -> None:
    for folder in FOLDERS:
        text = ast.get_docstring(parsed(folder / "__init__.py")) or ""
        if len(folder.relative_to(ROOT).parts) > 1:
            assert "import" in text.lower(), f"{short(folder)}/__init__.py: which other folders may it import?"


def test_pure_parts_have_no_clock_and_open_nothing() -> None:
    for path in pure():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in CLOCKS, f"{short(path)} line {node.lineno}: time is a parameter"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input"}, f"{short(path)} line {node.lineno}: no IO here"


def test_core_knows_only_the_contract_and_its_own_errors() -> None:
    for path in (p for p in pure() if "core" in p.parts):
        package = path.relative_to(ROOT).parts[0]
        allowed = (f"{package}.core", f"{package}.errors", "storelink.contract")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
                assert node.module.startswith(allowed), f"{short(path)} line {node.lineno}: {node.module}"


def test_only_configuration_and_the_process_itself_read_the_environment() -> None:
    for path in MODULES:
        if path.name not in READ_THE_ENVIRONMENT and path.parent.name != "commands":
            assert "os.environ" not in path.read_text(encoding="utf-8"), short(path)


def test_imports_follow_the_layers() -> None:
    """The rules stand in pyproject.toml, section importlinter."""
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
