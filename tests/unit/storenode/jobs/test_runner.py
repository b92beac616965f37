"""What the store's jobs do: nothing on disk before they are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from storenode.config import Settings
from storenode.jobs.background import Background
from storenode.jobs.price_changes import price_changes_path
from storenode.jobs.runner import JobRunner


@pytest.mark.parametrize("notifies", [True, False])
def test_price_changes_of_before_go_when_nobody_is_notified_any_more_and_not_before_the_start(
    tmp_path: Path, notifies: bool
) -> None:
    settings = Settings(db=tmp_path / "replica.db", tell_activations=notifies)
    kept = price_changes_path(settings.db)
    kept.touch()
    runner = JobRunner(settings, lambda command: None, Background())
    assert [path.name for path in tmp_path.iterdir()] == [kept.name], "building it does nothing on disk"
    runner.start()
    runner.stop()
    assert kept.exists() == notifies
