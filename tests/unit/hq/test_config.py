"""Settings: three sources, one winner, and every mistake at once."""

from pathlib import Path

import pytest

from hq.config import Settings, load
from hq.errors import BadSettings
from storelink.transport.url import BrokerUrl


def test_nothing_said_is_the_defaults() -> None:
    assert load({}) == Settings(Path("hq.db"), BrokerUrl("localhost", 1883), "storenode", 5.0, 500, 600)


def test_an_option_beats_the_environment_and_that_the_file(tmp_path: Path) -> None:
    file = tmp_path / "hq.toml"
    file.write_text('db = "file.db"\nroot = "file"\nbroker = "mqtts://u:p@file:99"\nhead_interval_ms = 50\n')
    environ = {"HQ_CONFIG": str(file), "HQ_ROOT": "environ", "HQ_DB": "environ.db", "HQ_HEARTBEAT_S": "2.5"}
    found = load(environ, None, {"db": "option.db", "root": None})
    broker = BrokerUrl("file", 99, True, "u", "p")
    assert found == Settings(Path("option.db"), broker, "environ", 2.5, 50, 600)


def test_all_mistakes_are_reported_each_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "hq.toml"
    file.write_text('hart_beat_s = 1\nhead_interval_ms = 1.5\nsegment_grace_s = true\nroot = ""\n')
    with pytest.raises(BadSettings) as caught:
        load({"HQ_HEARTBEAT_S": "soon", "HQ_BROKER": "http://x"}, file, {"db": ""})
    text = str(caught.value)
    for part in (
        f"{file}: unknown setting 'hart_beat_s', did you mean 'heartbeat_s'?",
        f"head_interval_ms in {file}:",
        f"segment_grace_s in {file}:",
        f"root in {file}:",
        "HQ_HEARTBEAT_S: 'soon'",
        "HQ_BROKER: ",
        "--db: ",
    ):
        assert part in text


@pytest.mark.parametrize("content", [b"db = ", b"\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadSettings, match=r"none\.toml"):
        load({}, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(BadSettings, match=r"bad\.toml"):
        load({}, tmp_path / "bad.toml")


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(load({"HQ_BROKER": "mqtt://u:secret@h"}))
