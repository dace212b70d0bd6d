"""Personal numbers of northern and eastern Europe, with their check digits. Pure; collected in `plans.py`.

Most begin with the day of birth; each check cites who defines it.
"""

from services.guardrail.detectors.national.check_digits import (
    is_date,
    is_short_date,
    iso_7064_11_10,
    luhn,
    weighted,
)
from services.guardrail.detectors.national.plan import Plan

_FINNISH = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_NORWEGIAN_FIRST, _NORWEGIAN_SECOND = (3, 7, 6, 1, 8, 9, 4, 5, 2, 1), (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
_CENTURY_MONTHS, _COORDINATION_DAYS, _FEMALE_MONTHS = 20, 60, 50
_D_NUMBER_DAYS = 40
_CZECH_SINCE_1954, _CZECH_TEN = 10, 10


def _is_day_first(ddmmyy: str) -> bool:
    return is_short_date(ddmmyy[4:6] + ddmmyy[2:4] + ddmmyy[:2])


def _polish(number: str) -> bool:
    """Ministry of Digital Affairs: weights 1 3 7 9; the month holds the century in steps of 20."""
    month = int(number[2:4]) % _CENTURY_MONTHS
    return (
        is_short_date(f"{number[:2]}{month:02}{number[4:6]}")
        and weighted(number, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0
    )


def _swedish(number: str) -> bool:
    """Skatteverket: Luhn over ten digits; the day of a coordination number is 60 more."""
    digits = number.replace("+", "")[-10:]
    day = int(digits[4:6])
    return is_short_date(f"{digits[:4]}{day - _COORDINATION_DAYS * (day > _COORDINATION_DAYS):02}") and luhn(digits)


def _norwegian(number: str) -> bool:
    """Skatteetaten: two check digits by mod 11; the day of a D number is 40 more."""
    day = int(number[:2])
    return (
        _is_day_first(f"{day - _D_NUMBER_DAYS * (day > _D_NUMBER_DAYS):02}{number[2:6]}")
        and weighted(number, _NORWEGIAN_FIRST) % 11 == 0
        and weighted(number, _NORWEGIAN_SECOND) % 11 == 0
    )


def _danish(number: str) -> bool:
    """CPR-kontoret: a day that there is; no check digit since 2007."""
    return _is_day_first(number[:6])


def _finnish(number: str) -> bool:
    """Digi- ja väestötietovirasto: day, century, serial, and a character by mod 31."""
    plain = number.replace("+", "")
    digits = plain[:6] + plain[-4:-1]
    return digits.isdigit() and _is_day_first(digits) and _FINNISH[int(digits) % 31] == plain[-1]


def _czech(number: str) -> bool:
    """Zákon 133/2000: divisible by 11; the month of a woman is 50 more, 20 more where serials ran out."""
    month = int(number[2:4]) % _FEMALE_MONTHS % _CENTURY_MONTHS
    if not is_short_date(f"{number[:2]}{month:02}{number[4:6]}"):
        return False
    remainder_ten_as_nought = int(number[:9]) % 11 == _CZECH_TEN and number[9:] == "0"  # given out until 1985
    return len(number) < _CZECH_SINCE_1954 or int(number) % 11 == 0 or remainder_ten_as_nought


def _romanian(number: str) -> bool:
    """CNP: weights 279146358279, a remainder of 10 gives 1."""
    check = weighted(number, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return is_short_date(number[1:7]) and number[-1] == "01234567891"[check]


def _croatian(number: str) -> bool:
    """OIB: ISO 7064 mod 11, 10."""
    return iso_7064_11_10(number)


def _bulgarian(number: str) -> bool:
    """EGN: the month holds the century in steps of 20; weights are powers of 2 by 11."""
    year, month = int(number[:2]), int(number[2:4])
    dated = is_date(2000 + year, month % _CENTURY_MONTHS or 99, int(number[4:6]))
    return dated and weighted(number, (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == int(number[-1])


PLANS = (
    Plan("pii.national_id.pl_pesel", r"\d{11}", _polish, 0.6, r"pesel"),
    Plan(
        "pii.national_id.se_personnummer",
        r"(?:19|20)?\d{6}[\-+]\d{4}",
        _swedish,
        0.8,
        r"personnummer|personal(?: identity)? number|samordningsnummer|swedish id",
    ),
    Plan(
        "pii.national_id.se_personnummer",
        r"(?:19|20)?\d{10}",
        _swedish,
        0.3,
        r"personnummer|samordningsnummer|swedish (?:personal|id)",
    ),
    Plan("pii.national_id.no_fnr", r"\d{6} ?\d{5}", _norwegian, 0.65, r"f[øo]dselsnummer|fnr|d-nummer|norwegian"),
    Plan("pii.national_id.dk_cpr", r"\d{6}[ \-]?\d{4}", _danish, 0.3, r"cpr|cpr-nummer|personnummer|danish"),
    Plan(
        "pii.national_id.fi_hetu",
        r"\d{6}[\-+A-FU-Y]\d{3}[0-9A-Y]",
        _finnish,
        0.9,
        r"hetu|henkil[öo]tunnus|personal identity code",
    ),
    Plan("pii.national_id.cz_rc", r"\d{6}/\d{3,4}", _czech, 0.8, r"rodn[ée] [čc][íi]slo|r\.?[čc]\.?|birth number"),
    Plan("pii.national_id.ro_cnp", r"[1-8]\d{12}", _romanian, 0.7, r"cnp|cod numeric"),
    Plan("pii.national_id.hr_oib", r"\d{11}", _croatian, 0.3, r"oib"),
    Plan("pii.national_id.bg_egn", r"\d{10}", _bulgarian, 0.3, r"egn|егн"),
)
