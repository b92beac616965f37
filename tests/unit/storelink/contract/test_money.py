"""Amounts as people type them."""

import pytest

from storelink.contract.money import EXPONENTS, minor_units, money_text


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("1.99", "EUR", 199),
        ("2", "EUR", 200),
        ("2.5", "EUR", 250),
        ("0", "EUR", 0),
        ("007.10", "USD", 710),
        ("150", "JPY", 150),
        ("1.234", "KWD", 1234),
        ("1.2", "KWD", 1200),
        ("0.0001", "CLF", 1),
    ],
)
def test_a_decimal_amount_becomes_minor_units(text: str, currency: str, minor: int) -> None:
    assert minor_units(text, currency) == minor


@pytest.mark.parametrize(
    ("text", "currency", "says"),
    [
        ("-1", "EUR", "negative"),
        ("-0.01", "EUR", "negative"),
        ("abc", "EUR", "not a number"),
        ("", "EUR", "not a number"),
        ("1,99", "EUR", "decimal point"),
        ("1.234,50", "EUR", "decimal point"),
        ("1.999", "EUR", "3 digits"),
        ("1.990", "EUR", "3 digits"),
        ("1.5", "JPY", "1 digits"),
        ("1e2", "EUR", "not a number"),
        ("NaN", "EUR", "not a number"),
        ("Infinity", "EUR", "not a number"),
        ("+1", "EUR", "not a number"),
        (".5", "EUR", "not a number"),
        ("5.", "EUR", "not a number"),
        ("١", "EUR", "not a number"),
        ("1 000", "EUR", "not a number"),
        ("1_000", "EUR", "not a number"),
        ("99999999999999.99", "EUR", "too large"),
        ("9" * 16, "EUR", "not a number"),
    ],
)
def test_an_amount_that_could_mean_two_things_is_refused(text: str, currency: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        minor_units(text, currency)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (199, "EUR", "1.99 EUR"),
        (5, "EUR", "0.05 EUR"),
        (0, "EUR", "0.00 EUR"),
        (150, "JPY", "150 JPY"),
        (1, "CLF", "0.0001 CLF"),
        (199, "XXX", "199 XXX"),
    ],
)
def test_people_read_amounts_with_a_point(amount_minor: int, currency: str, text: str) -> None:
    assert money_text(amount_minor, currency) == text


def test_the_currencies_are_iso_4217() -> None:
    assert all(len(code) == 3 and code.isupper() for code in EXPONENTS)
    assert (EXPONENTS["EUR"], EXPONENTS["JPY"], EXPONENTS["BHD"], EXPONENTS["UYW"]) == (2, 0, 3, 4)
    assert "XXX" not in EXPONENTS
