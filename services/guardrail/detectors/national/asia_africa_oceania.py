"""Personal numbers of Asia, Africa and Oceania, with their check digits. Pure; collected in `plans.py`."""

from services.guardrail.detectors.national.check_digits import is_date, is_short_date, luhn, verhoeff, weighted
from services.guardrail.detectors.national.plan import Plan

_CHINESE = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_SINGAPORE = {"S": (0, "JZIHGFEDCBA"), "T": (4, "JZIHGFEDCBA"), "F": (0, "XWUTRQPNMLK"), "G": (4, "XWUTRQPNMLK")}
_FEWEST_DISTINCT = 3


def _aadhaar(number: str) -> bool:
    """UIDAI: Verhoeff; no number begins with 0 or 1 or reads the same backwards."""
    return number[0] not in "01" and number != number[::-1] and verhoeff(number)


def _pan(number: str) -> bool:
    """Income Tax Department: the fourth letter tells whose it is, P a person's."""
    return number[3] in "PCHFATBLJG" and number[5:9] != "0000"


def _chinese(number: str) -> bool:
    """GB 11643: a day that there is, and ISO 7064 mod 11, 2."""
    day = is_date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    return day and "10X98765432"[weighted(number, _CHINESE) % 11] == number[17]


def _korean(number: str) -> bool:
    """A day that there is; numbers since 2020 have no check digit."""
    return is_short_date(number[:6])


def _singaporean(number: str) -> bool:
    """ICA: weights 2 7 6 5 4 3 2, 4 more for T and G, a letter by mod 11."""
    offset, letters = _SINGAPORE[number[0]]
    return letters[(offset + weighted(number[1:8], (2, 7, 6, 5, 4, 3, 2))) % 11] == number[8]


def _turkish(number: str) -> bool:
    """Nüfus: two check digits of the sums of odd and even places."""
    odd, even = sum(map(int, number[0:9:2])), sum(map(int, number[1:8:2]))
    return (odd * 7 - even) % 10 == int(number[9]) and sum(map(int, number[:10])) % 10 == int(number[10])


def _south_african(number: str) -> bool:
    """Department of Home Affairs: a day that there is, a citizenship of 0 to 2, Luhn."""
    return is_short_date(number[:6]) and number[10] in "012" and luhn(number)


def _israeli(number: str) -> bool:
    """Luhn over nine digits."""
    return luhn(number) and len(set(number)) >= _FEWEST_DISTINCT


def _australian_tax(number: str) -> bool:
    """ATO: weights 1 4 3 7 5 8 6 9 10, mod 11."""
    return weighted(number, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def _medicare(number: str) -> bool:
    """Services Australia: the ninth digit is the weighted sum of eight by mod 10."""
    return weighted(number[:8], (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(number[8])


PLANS = (
    Plan("pii.national_id.in_aadhaar", r"[2-9]\d{3}[ \-]\d{4}[ \-]\d{4}", _aadhaar, 0.75, r"aadhaa?r|uidai|uid"),
    Plan("pii.national_id.in_aadhaar", r"[2-9]\d{11}", _aadhaar, 0.5, r"aadhaa?r|uidai|uid"),
    Plan("pii.national_id.in_pan", r"[A-Z]{5}\d{4}[A-Z]", _pan, 0.6, r"pan|permanent account"),
    Plan(
        "pii.national_id.cn_id",
        r"[1-9]\d{5}(?:19|20)\d{9}[\dX]",
        _chinese,
        0.95,
        r"身份证|resident identity|chinese id",
    ),
    Plan("pii.national_id.kr_rrn", r"\d{6}-[1-8]\d{6}", _korean, 0.85, r"주민등록번호|rrn|resident registration"),
    Plan("pii.national_id.sg_nric", r"[STFG]\d{7}[A-Z]", _singaporean, 0.85, r"nric|fin|singapore"),
    Plan("pii.national_id.tr_tckn", r"[1-9]\d{10}", _turkish, 0.65, r"t\.?c\.? ?kimlik|tckn|kimlik"),
    Plan("pii.national_id.za_id", r"\d{6} ?\d{4} ?\d{3}", _south_african, 0.75, r"south african|rsa id|sa id|identity"),
    Plan("pii.national_id.il_id", r"\d{9}", _israeli, 0.3, r"teudat zehut|תעודת זהות|israeli id"),
    Plan("pii.national_id.au_tfn", r"\d{3} ?\d{3} ?\d{3}", _australian_tax, 0.4, r"tfn|tax file"),
    Plan("pii.national_id.au_medicare", r"[2-6]\d{3} ?\d{5} ?\d(?: ?\d)?", _medicare, 0.4, r"medicare"),
)
