"""Check digits that several countries' numbers use. Pure; used by the plans beside it and by `bank_account.py`."""

from collections.abc import Sequence
from datetime import date

_DOUBLED = str.maketrans("0123456789", "0246813579")  # twice a digit, the digits of the product added
# Verhoeff (1969): the dihedral group D5 and the permutation that is applied by position.
_D5 = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_PERMUTED = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    return sum(map(int, digits[::-2] + digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def verhoeff(digits: str) -> bool:
    """A check over the dihedral group: every wrong digit and every swap of neighbours is told."""
    check = 0
    for position, digit in enumerate(reversed(digits)):
        check = int(_D5[check][int(_PERMUTED[position % 8][int(digit)])])
    return check == 0


def iso_7064_11_10(digits: str) -> bool:
    """ISO 7064, the hybrid system mod 11, 10."""
    product = 10
    for digit in digits[:-1]:
        product = ((int(digit) + product - 1) % 10 + 1) * 2 % 11
    return (product + int(digits[-1])) % 10 == 1


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of each digit times its weight; digits without a weight do not count."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def is_date(year: int, month: int, day: int) -> bool:
    """Whether there was such a day."""
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def is_short_date(yymmdd: str) -> bool:
    """Whether six digits are a day of some century: every two digits of a year that is a leap year in one."""
    return is_date(2000 + int(yymmdd[:2]), int(yymmdd[2:4]), int(yymmdd[4:6]))
