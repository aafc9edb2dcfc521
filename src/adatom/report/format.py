"""Numbers as a reader wants them: few digits, a real minus sign, powers of ten written as such."""

from __future__ import annotations

import math
import re

from markupsafe import Markup, escape

THIN = "\u202f"  # narrow space that does not break: groups digits, joins a number to its unit
MISSING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BASELINE = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "−0123456789")
_EXPONENT = re.compile("(?<=10)[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")


def number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits: ``0.0123``, ``90.2``, ``12 300``, ``1.2×10⁻⁸``; an en dash for no value."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return _minus(mantissa) + power(int(exponent))
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return fixed(value, decimals)


def tidy(value: float | None) -> str:
    """Up to four digits and no zeros at the end, for numbers that somebody has set: ``300``, ``0.05``, ``10⁻¹⁰``."""
    if value is None or not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e4:
        return number(value) if value is None or not math.isfinite(value) else _minus(f"{value:.4g}")
    mantissa, exponent = f"{value:.3e}".split("e")
    mantissa = _minus(mantissa.rstrip("0").rstrip("."))
    return power(int(exponent)).removeprefix("×") if mantissa == "1" else mantissa + power(int(exponent))


def raised(text: str) -> Markup:
    """Escaped HTML in which the exponents are real superscripts: the Unicode ones differ in size within one font."""
    return Markup(_EXPONENT.sub(lambda m: f"<sup>{m[0].translate(_BASELINE)}</sup>", str(escape(text))))


def fixed(value: float | None, decimals: int) -> str:
    """A set count of decimals, thousands grouped."""
    if value is None or not math.isfinite(value):
        return MISSING
    return _minus(f"{value:,.{decimals}f}".replace(",", THIN))


def signed(value: float | None, decimals: int) -> str:
    """A difference: the sign always stands before it."""
    if value is None or not math.isfinite(value):
        return MISSING
    return _minus(f"{value:+,.{decimals}f}".replace(",", THIN))


def integer(value: float | None) -> str:
    """A count, thousands grouped."""
    return fixed(value, 0)


def power(exponent: int) -> str:
    """``×10⁻⁸``."""
    return "×10" + str(exponent).translate(_SUPERSCRIPT)


def duration(seconds: float | None) -> str:
    """``48 s``, ``6 min 42 s``, ``3 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{number(seconds, 2)}{THIN}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{THIN}s"
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s"
    return f"{whole // 3600}{THIN}h {whole % 3600 // 60:02d}{THIN}min"


def plural(count: int, noun: str) -> str:
    """``1 structure``, ``279 structures``."""
    return f"{integer(count)} {noun}{'' if count == 1 else 's'}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
