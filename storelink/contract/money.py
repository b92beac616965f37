"""Decimal amounts to integer minor units, by ISO 4217; nothing is rounded and nothing is guessed."""

from __future__ import annotations

import re

AMOUNT_MINOR_MAX = 10**15
"""More than any shelf price; leaves room for sums in 63 bits."""

_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.([0-9]+))?")

_TWO = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF"
    " CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF"
    " IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN"
    " MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS"
    " SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"

EXPONENTS = dict.fromkeys(_TWO.split(), 2)
EXPONENTS |= dict.fromkeys(_NONE.split(), 0)
EXPONENTS |= dict.fromkeys(_THREE.split(), 3)
EXPONENTS |= dict.fromkeys(_FOUR.split(), 4)
"""Digits after the point, by currency; ISO 4217 list one."""


def minor_units(text: str, currency: str) -> int:
    """
    Read an amount such as `1.99` in a currency of EXPONENTS.

    Raises:
        ValueError: negative, not a plain decimal number, or finer than the currency's minor unit.
    """
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError(_why_not(text))
    whole, fraction = found[1], found[2] or ""
    exponent = EXPONENTS[currency]
    if len(fraction) > exponent:
        raise ValueError(f"{text!r} has {len(fraction)} digits after the point; {currency} has {exponent}")
    amount = int(whole + fraction.ljust(exponent, "0"))
    if amount > AMOUNT_MINOR_MAX:
        raise ValueError(f"{text!r} is too large")
    return amount


def money_text(amount_minor: int, currency: str) -> str:
    """Write minor units as people read them, `1.99 EUR`; a currency that is not known has no digits after the point."""
    exponent = EXPONENTS.get(currency, 0)
    digits = f"{amount_minor:0{exponent + 1}}"
    return f"{digits[:-exponent]}.{digits[-exponent:]} {currency}" if exponent else f"{digits} {currency}"


def _why_not(text: str) -> str:
    shown = text[:40]
    if text.startswith("-"):
        return f"{shown!r} is negative"
    if "," in text:
        return f"{shown!r} is not a number: write a decimal point and no thousands separator, such as 1234.56"
    return f"{shown!r} is not a number such as 1.99"
