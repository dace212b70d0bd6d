"""Personal numbers of western and southern Europe, with their check digits. Pure; collected in `plans.py`.

Each check cites who defines it.
"""

from services.guardrail.detectors.national.check_digits import is_date, iso_7064_11_10, weighted
from services.guardrail.detectors.national.plan import Plan

_MOD_23 = "TRWAGMYFPDXBNJZSQVHLCKE"
# Agenzia delle Entrate: what a character at an odd place counts, for 0 to 9 and for A to Z; letters in place of digits.
_ODD_DIGITS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_ODD_LETTERS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_DIGIT_LETTERS = str.maketrans("LMNPQRSTUV", "0123456789")
_MONTHS = "ABCDEHLMPRST"
_FEMALE_DAYS = 40
_MONTHS_OF_A_YEAR = 12
_NINO_NEVER = frozenset({"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"})


def _nhs(number: str) -> bool:
    """NHS Data Dictionary: mod 11 over ten digits."""
    return weighted(number, range(10, 0, -1)) % 11 == 0 and len(set(number)) > 1


def _nino(number: str) -> bool:
    """HMRC, NIM39110: letters that are never given out."""
    return number[:2] not in _NINO_NEVER and not set(number[:2]) & set("DFIQUV") and number[1] != "O"


def _french(number: str) -> bool:
    """INSEE: the key is 97 less the remainder by 97; Corsica's letters count as digits."""
    body = number[:-2].replace("2A", "19", 1).replace("2B", "18", 1)
    return body.isdigit() and 97 - int(body) % 97 == int(number[-2:])


def _german_tax(number: str) -> bool:
    """BZSt: ISO 7064 mod 11, 10; no leading zero; of the first ten digits one or two stand more than once."""
    often = sum(number[:10].count(digit) > 1 for digit in set(number[:10]))
    return number[0] != "0" and often == 1 and iso_7064_11_10(number)


def _spanish(number: str) -> bool:
    """Real Decreto 1553/2005: the letter is the number by mod 23; a foreigner's X, Y, Z count as 0, 1, 2."""
    digits = number[:-1].translate(str.maketrans("XYZ", "012"))
    return _MOD_23[int(digits) % 23] == number[-1]


def _italian(number: str) -> bool:
    """Decreto ministeriale 23/12/1976: a day that there is, and the check letter."""
    digits = (number[6:8] + number[9:11]).translate(_DIGIT_LETTERS)
    day = int(digits[2:]) % _FEMALE_DAYS
    if number[8] not in _MONTHS or not is_date(2000 + int(digits[:2]), _MONTHS.index(number[8]) + 1, day):
        return False
    odd = sum(_ODD_DIGITS[int(char)] if char.isdigit() else _ODD_LETTERS[ord(char) - 65] for char in number[:15:2])
    even = sum(int(char) if char.isdigit() else ord(char) - 65 for char in number[1:15:2])
    return chr(65 + (odd + even) % 26) == number[15]


def _dutch(number: str) -> bool:
    """Rijksdienst voor Identiteitsgegevens: the eleven test."""
    return weighted(number, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and int(number) > 0


def _belgian(number: str) -> bool:
    """Rijksregister: 97 less the remainder by 97, with a 2 in front for those born since 2000."""
    check = int(number[9:])
    return int(number[2:4]) <= _MONTHS_OF_A_YEAR and check in {
        97 - int(number[:9]) % 97,
        97 - int("2" + number[:9]) % 97,
    }


def _swiss(number: str) -> bool:
    """ZAS: an EAN-13 that begins with 756."""
    return weighted(number, (1, 3) * 6 + (1,)) % 10 == 0


def _portuguese(number: str) -> bool:
    """Autoridade Tributária: mod 11, a remainder below 2 gives 0."""
    return number[-1] == "00987654321"[weighted(number, range(9, 1, -1)) % 11]


def _irish(number: str) -> bool:
    """Revenue: seven digits by weights 8 to 2, a second letter by 9, mod 23."""
    second = ord(number[8]) - 64 if number[8:] not in {"", "W"} else 0
    return "WABCDEFGHIJKLMNOPQRSTUV"[(weighted(number[:7], range(8, 1, -1)) + 9 * second) % 23] == number[7]


PLANS = (
    Plan("pii.national_id.uk_nhs", r"\d{3}[ \-]?\d{3}[ \-]?\d{4}", _nhs, 0.3, r"nhs|national health|patient"),
    Plan(
        "pii.national_id.uk_nino",
        r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        _nino,
        0.8,
        r"national insurance|nino?|n\.i\.|insurance",
    ),
    Plan(
        "pii.national_id.fr_nir",
        r"[1-478] ?\d{2} ?(?:0[1-9]|[1-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}",
        _french,
        0.85,
        r"nir|insee|s[ée]curit[ée] sociale|num[ée]ro de s[ée]cu|french social security|social security",
    ),
    Plan(
        "pii.national_id.de_tax",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        _german_tax,
        0.4,
        r"steuer-?id(?:entifikationsnummer|nr)?|idnr|steuernummer|tin|tax",
    ),
    Plan("pii.national_id.es_dni", r"\d{8}[ \-]?[A-Z]", _spanish, 0.8, r"dni|nif|documento nacional|spanish id"),
    Plan("pii.national_id.es_nie", r"[XYZ][ \-]?\d{7}[ \-]?[A-Z]", _spanish, 0.85, r"nie|extranjero"),
    Plan(
        "pii.national_id.it_fiscal",
        r"[A-Z]{6}[0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]",
        _italian,
        0.95,
        r"codice fiscale|fiscal code|c\.?f\.?",
    ),
    Plan("pii.national_id.nl_bsn", r"\d{9}|\d{4}[. ]\d{2}[. ]\d{3}", _dutch, 0.3, r"bsn|burgerservice|sofi"),
    Plan(
        "pii.national_id.be_nrn",
        r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}",
        _belgian,
        0.95,
        r"rijksregister|registre national|nrn|insz|niss",
    ),
    Plan(
        "pii.national_id.be_nrn",
        r"\d{11}",
        _belgian,
        0.3,
        r"rijksregister(?:nummer)?|registre national|nrn|insz|niss",
    ),
    Plan("pii.national_id.ch_ahv", r"756\.?\d{4}\.?\d{4}\.?\d{2}", _swiss, 0.9, r"ahv|avs|oasi"),
    Plan("pii.national_id.pt_nif", r"[1-35689]\d{2} ?\d{3} ?\d{3}", _portuguese, 0.3, r"nif|contribuinte"),
    Plan("pii.national_id.ie_pps", r"\d{7}[A-W][A-IW]?", _irish, 0.7, r"pps|ppsn|personal public service"),
)
