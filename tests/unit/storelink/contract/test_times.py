"""Points in time as people write them."""

from __future__ import annotations

import pytest

from storelink.contract.times import BadTime, epoch_seconds


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
        ("2026-01-01T10", "lacks Z"),
        ("20260101T1000", "lacks Z"),
        ("2026-01-01T10:00:00.5", "lacks Z"),
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


def test_a_refusal_says_what_to_write() -> None:
    with pytest.raises(BadTime, match="'2026-01-01T10:00' lacks Z or an offset: end it in Z, or in an offset such as"):
        epoch_seconds("2026-01-01T10:00")
    with pytest.raises(BadTime, match="'noon' is not a time: write it as in 2026-12-24T18:00:00Z, or a date as in"):
        epoch_seconds("noon")


def test_a_question_may_name_any_instant() -> None:
    assert epoch_seconds("1969-12-31T23:59:59Z", any_instant=True) == -1
    assert epoch_seconds("0001-01-01T00:00:00+14:00", any_instant=True) < -62_135_596_800
    with pytest.raises(BadTime, match="lacks Z or an offset"):
        epoch_seconds("1969-12-31T23:59", any_instant=True)


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00.999Z", "2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00Z"])
def test_a_question_may_name_a_part_of_a_second(text: str) -> None:
    assert epoch_seconds(text, any_instant=True) == 1767225600
