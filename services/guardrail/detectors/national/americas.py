"""Personal numbers of the Americas, with their check digits. Pure; collected in `plans.py`."""

from services.guardrail.detectors.national.check_digits import is_short_date, luhn, weighted
from services.guardrail.detectors.national.plan import Plan

_ITIN_GROUPS = frozenset([*range(50, 66), *range(70, 89), *range(90, 93), *range(94, 100)])
_CURP = "0123456789ABCDEFGHIJKLMN\u00d1OPQRSTUVWXYZ"


def _itin(number: str) -> bool:
    """IRS, Publication 1915: nine digits that begin with 9, the fourth and fifth in the ranges given out."""
    return int(number[3:5]) in _ITIN_GROUPS


def _canadian(number: str) -> bool:
    """Service Canada: Luhn; no number begins with 8, and 0 is for fictitious ones."""
    return number[0] not in "08" and luhn(number)


def _brazilian(number: str) -> bool:
    """Receita Federal: two check digits by mod 11; the same digit eleven times is none."""
    first = weighted(number[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(number[:10], range(11, 1, -1)) * 10 % 11 % 10
    return len(set(number)) > 1 and number[9:] == f"{first}{second}"


def _mexican(number: str) -> bool:
    """RENAPO: a day that there is, and a check digit by mod 10 over the alphabet with Ñ."""
    total = sum(_CURP.index(char) * (18 - place) for place, char in enumerate(number[:17]))
    return is_short_date(number[4:10]) and str(-total % 10) == number[17]


def _chilean(number: str) -> bool:
    """Servicio de Impuestos Internos: weights 2 to 7 from the right, mod 11, K for 10."""
    total = weighted(number[-2::-1], (2, 3, 4, 5, 6, 7, 2, 3))
    return "0K987654321"[total % 11] == number[-1]


PLANS = (
    Plan("pii.national_id.us_itin", r"9\d{2}-\d{2}-\d{4}", _itin, 0.85, r"itin|taxpayer|tax"),
    Plan("pii.national_id.us_itin", r"9\d{2} ?\d{2} ?\d{4}", _itin, 0.3, r"itin|individual taxpayer"),
    Plan(
        "pii.national_id.ca_sin",
        r"\d{3}[ \-]?\d{3}[ \-]?\d{3}",
        _canadian,
        0.4,
        r"sin|social insurance|canadian social",
    ),
    Plan("pii.national_id.br_cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", _brazilian, 0.95, r"cpf"),
    Plan("pii.national_id.br_cpf", r"\d{11}", _brazilian, 0.5, r"cpf|cadastro de pessoas"),
    Plan("pii.national_id.mx_curp", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[0-9A-Z]\d", _mexican, 0.95, r"curp"),
    Plan("pii.national_id.cl_rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dK]", _chilean, 0.9, r"rut|run"),
)
