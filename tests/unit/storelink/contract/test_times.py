"""Times as people type them."""

import pytest

from storelink.contract.times import epoch_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0),
        ("2026-01-01", 1767225600),
        ("2026-01-01T00:00:00Z", 1767225600),
        ("2026-01-01t00:00:00z", 1767225600),
        ("2026-01-01 01:00+01:00", 1767225600),
        ("2025-12-31T19:00:00.000-05:00", 1767225600),
    ],
)
def test_a_time_is_read_to_the_second(text: str, seconds: int) -> None:
    assert epoch_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-01-01T00:00:00", "lacks Z"),
        ("2026-01-01 10:00", "lacks Z"),
        ("01.02.2026", "is not a time"),
        ("tomorrow", "is not a time"),
        ("2026-02-30", "is no time"),
        ("2026-01-01T25:00Z", "is no time"),
        ("2026-01-01T00:00:00.5Z", "finer than a second"),
        ("1969-12-31", "before 1970"),
        ("", "is not a time"),
        ("0001-01-01T00:00+23:00", "is no time"),
        ("٢٠٢٦-01-01", "is not a time"),
    ],
)
def test_a_time_without_its_offset_or_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        epoch_seconds(text)
