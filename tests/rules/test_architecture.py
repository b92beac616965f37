"""The rules that keep the project's shape: import directions, sizes of modules and functions, names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("contract", "link", "hq", "storenode")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


MODULE_LINES_MAX = 300
FUNCTION_LINES_MAX = 40
BANNED = re.compile(r"manager|service|helper|util|handler|processor|(?:^|_)(?:data|info)(?:_|$)")
PURE = [path for path in MODULES if path.parts[len(ROOT.parts)] == "contract" or "core" in path.parts]
CLOCKS = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "datetime.now", "date.today"}

each_module = pytest.mark.parametrize("path", MODULES, ids=short)
each_pure_module = pytest.mark.parametrize("path", PURE, ids=short)
each_core_module = pytest.mark.parametrize("path", [p for p in PURE if "core" in p.parts], ids=short)


def definitions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@each_module
def test_a_module_says_in_one_line_what_it_is_and_is_not_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < MODULE_LINES_MAX, "split it by what it is about"
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "no docstring"
    assert docstring.splitlines()[0].endswith((".", ":")), "the first line is a sentence"


@each_module
def test_a_function_fits_on_a_screen(path: Path) -> None:
    for node in definitions(parsed(path)):
        if isinstance(node, ast.ClassDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        lines = node.end_lineno - body[0].lineno + 1 if body and node.end_lineno else 0
        assert lines < FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@each_module
def test_names_say_what_a_thing_is(path: Path) -> None:
    names = [path.stem, *(node.name for node in definitions(parsed(path)))]
    for name in names:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        assert not BANNED.search(words), f"{name} says nothing"


@each_pure_module
def test_pure_parts_have_no_clock_and_open_nothing(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in CLOCKS, f"line {node.lineno}: time is a parameter"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input"}, f"line {node.lineno}: no IO here"


@each_core_module
def test_core_knows_only_the_contract_and_its_own_errors(path: Path) -> None:
    package = path.parts[len(ROOT.parts)]
    allowed = (f"{package}.core", f"{package}.errors", "contract")
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            assert node.module.startswith(allowed), f"line {node.lineno}: {node.module}"


@each_module
def test_only_configuration_and_the_process_itself_read_the_environment(path: Path) -> None:
    if path.stem in {"config", "process", "frame", "cli"}:
        return
    assert "os.environ" not in path.read_text(encoding="utf-8")


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
