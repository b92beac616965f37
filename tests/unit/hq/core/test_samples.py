"""A few changes as people and programs see them before anything is imported."""

from pathlib import Path

import pytest

from hq.core.changes import Change
from hq.core.samples import SAMPLES_MAX, WIDTH, document, samples, text_lines
from storelink.contract.contexts import PRICE, PRODUCT, Context, Key, Row, Value
from storelink.contract.declared import parse

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
DAY = 86_400
BLANK = (None,) * 9
EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "contexts.toml"


def shown(context: Context, key: Key, old: Row | None, new: Row | None) -> list[str]:
    """The lines of one change, without its heading."""
    current: dict[Key, Row] = {} if old is None else {key: (1, *key, *old)}
    found = samples(context, [Change(key, new)], current)
    heading, *text = text_lines(context, found, {kind: len(few) for kind, few in found.items()}, NOW)
    assert heading in ("new:", "changed:", "deleted:")
    return text


def price(old: str | None, new: str | None, currency: str = "EUR") -> str:
    sides = [None if text is None else (currency, text.replace("NOW", str(NOW))) for text in (old, new)]
    text = " ".join(line.strip() for line in shown(PRICE, ("4011", "regular"), *sides))
    return text.removeprefix("4011/regular").strip()


D1, D2 = "2027-01-16T08:00:00Z", "2027-01-17T08:00:00Z"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, "[[NOW,null,199]]", "1.99 EUR"),
        ("[[5,null,199]]", None, "1.99 EUR"),
        ("[[5,null,199]]", "[[5,NOW,199],[NOW,null,219]]", "1.99 EUR -> 2.19 EUR"),
        (
            f"[[5,{NOW + DAY},199],[{NOW + DAY},null,299]]",
            f"[[NOW,{NOW + DAY},219],[{NOW + DAY},null,299]]",
            f"1.99 EUR until {D1} -> 2.19 EUR until {D1}",
        ),
        (
            "[[5,null,199]]",
            f"[[5,{NOW + DAY},199],[{NOW + DAY},{NOW + 2 * DAY},99],[{NOW + 2 * DAY},null,199]]",
            f"1.99 EUR -> 1.99 EUR until {D1}, 0.99 EUR from {D1} until {D2}, 1.99 EUR from {D2}",
        ),
        ("[[5,9,199]]", None, "1.99 EUR until 1970-01-01T00:00:09Z"),
    ],
)
def test_prices_are_amounts_with_their_times(old: str | None, new: str | None, expected: str) -> None:
    assert price(old, new) == expected


def test_a_long_schedule_is_cut_and_says_so() -> None:
    steps = ",".join(f"[{NOW + i * DAY},{NOW + (i + 1) * DAY},{i}]" for i in range(1, 9))
    assert price(f"[{steps}]", None, "JPY").endswith(", and 5 more")


def test_fields_stand_with_old_and_new_value() -> None:
    old, new = (None, "A", "x"), (None, "B", None)
    assert shown(PRODUCT, ("1",), (*old, *BLANK), (*new, *BLANK)) == ['  1  name: "A" -> "B", description: "x" -> none']
    assert shown(PRODUCT, ("1",), None, (None, "Müsli\n2", None, *BLANK)) == [r'  1  name: "Müsli\n2"']
    assert shown(PRODUCT, ("1",), (None, "A", None, *BLANK), None) == ['  1  name: "A"']


def test_values_of_a_declared_context_read_as_they_are_typed() -> None:
    promotion = next(context for context in parse(EXAMPLE.read_text()) if context.name == "promotion")
    before: dict[str, Value] = {"title": "A", "minimum_minor": 1000, "stackable": 0}
    after = before | {"minimum_minor": 2050, "stackable": 1}
    old, new = (tuple(each.get(name) for name in promotion.value_names) for each in (before, after))
    assert shown(promotion, ("S1",), old, new) == [
        "  S1  minimum_minor: 10.00 EUR -> 20.50 EUR, stackable: false -> true"
    ]


def test_long_values_are_cut_where_they_differ_and_no_line_is_wider_than_a_terminal() -> None:
    same = "word " * 100
    old, new = (None, "n" * 500, same + "old"), (None, "m" * 500, same + "new")
    text = shown(PRODUCT, ("k" * 128,), (*old, *BLANK), (*new, *BLANK))
    assert max(map(len, text)) <= WIDTH
    assert 'old"' in "".join(text)
    assert 'new"' in "".join(text)


def test_there_are_so_many_of_each_kind_and_the_rest_is_counted() -> None:
    current: dict[Key, Row] = {(str(i), "regular"): (1, str(i), "regular", "EUR", "[[5,null,199]]") for i in range(30)}
    changes = [Change((f"n{i}", "regular"), ("EUR", "[[5,null,1]]")) for i in range(3)]
    changes += [Change(key, ("EUR", "[[5,null,2]]")) for key in list(current)[:5]]
    changes += [Change(key, None) for key in list(current)[5:]]
    found = samples(PRICE, changes, current)
    text = list(text_lines(PRICE, found, {"new": 3, "changed": 5, "deleted": 1_254}, NOW))
    assert [line for line in text if not line.startswith("  ")] == ["new:", "changed:", "deleted:"]
    assert text[-1] == "  … and 1,234 more"
    assert len(text) == 3 + 3 + 5 + SAMPLES_MAX + 1
    found_document = document(PRICE, found)
    assert {kind: len(few) for kind, few in found_document.items()} == {"new": 3, "changed": 5, "deleted": SAMPLES_MAX}
    step = {"starts_at": "1970-01-01T00:00:05Z", "ends_at": None}
    assert found_document["changed"][0] == {
        "key": ["0", "regular"],
        "changed": ["schedule"],
        "old": {"currency": "EUR", "schedule": [step | {"amount_minor": 199}]},
        "new": {"currency": "EUR", "schedule": [step | {"amount_minor": 2}]},
    }
    assert (found_document["new"][0]["old"], found_document["deleted"][0]["new"]) == (None, None)
