"""The one reader of settings: three sources, all mistakes at once, each with its key and the expected form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from storelink.host.settings import flag, listed, names_of, number, path, read_settings, setting, text, whole


@dataclass(frozen=True, slots=True)
class Declared:
    name: str = setting(lambda: "made", text, "A name.")
    file: Path = setting(Path("a.db"), path, "A file.")
    keep: int = setting(7, whole(1, 9), "How many.")
    every_s: float = setting(1.5, number(0.1, 10), "How often.")
    on: bool = setting(False, flag, "Whether.")
    hosts: tuple[str, ...] = setting((), listed("a,b"), "Which.")


def test_a_declaration_is_a_dataclass_with_its_defaults() -> None:
    assert Declared() == Declared("made", Path("a.db"), 7, 1.5, False, ())
    assert names_of(Declared) == ["name", "file", "keep", "every_s", "on", "hosts"]


def test_an_option_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('name = "file"\nkeep = 1\nevery_s = 2\non = true\nhosts = ["a", " b "]\n')
    environ = {"X_CONFIG": str(file), "X_KEEP": "2", "X_EVERY_S": "3.5", "Y_NAME": "other"}
    found = read_settings(Declared, "X_", environ, None, {"keep": "3", "name": None})
    assert found.mistakes == []
    assert found.values == {"name": "file", "keep": 3, "every_s": 3.5, "on": True, "hosts": ("a", "b")}
    assert found.sources == {
        "name": f"name in {file}",
        "keep": "--keep",
        "every_s": "X_EVERY_S",
        "on": f"on in {file}",
        "hosts": f"hosts in {file}",
    }
    assert found.path == file


def test_every_mistake_is_said_with_its_source_and_the_expected_form(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("nam = 1\nkeep = 1.5\nevery_s = true\nhosts = [1]\n")
    found = read_settings(Declared, "X_", {"X_ON": "maybe", "X_NAME": ""}, file, {"file": ""})
    assert found.mistakes == [
        f"{file}: unknown setting 'nam', did you mean 'name'?",
        f"keep in {file}: 1.5 must be a whole number from 1 to 9",
        f"every_s in {file}: True must be a number from 0.1 to 10",
        f"hosts in {file}: must be a list, as in 'a,b'",
        "X_NAME: must be a text that is not empty",
        "X_ON: 'maybe' must be true or false",
        "--file: must be a text that is not empty",
    ]
    assert (found.values, found.broken) == ({}, {"name", "file", "keep", "every_s", "on", "hosts"})


def test_a_value_may_be_taken_back_with_its_source() -> None:
    found = read_settings(Declared, "X_", {"X_KEEP": "2"}, None, None)
    found.refuse("keep", "does not go with the others")
    assert (found.values, found.broken) == ({}, {"keep"})
    assert found.mistakes == ["X_KEEP: does not go with the others"]


@pytest.mark.parametrize("value", ["0", 10, "-1", "1e0", "", "٣", True, None])
def test_a_whole_number_is_digits_within_bounds(value: object) -> None:
    with pytest.raises(ValueError, match="must be a whole number from 1 to 9"):
        whole(1, 9)(value)


@pytest.mark.parametrize("value", ["nan", "inf", 11, "soon", False, None])
def test_a_number_is_finite_and_within_bounds(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be a number from 0\.1 to 10"):
        number(0.1, 10)(value)
