"""Tests of the detectors of people's papers, accounts, devices and names: what each finds and what it leaves alone."""

import pytest

from servicekit.domain.verdict import Surface
from services.guardrail.detectors.bank_account import BankAccountDetector
from services.guardrail.detectors.crypto_address import CryptoAddressDetector
from services.guardrail.detectors.date_of_birth import DateOfBirthDetector
from services.guardrail.detectors.detector import Detector, Subject
from services.guardrail.detectors.driver_license import DriverLicenseDetector
from services.guardrail.detectors.mac_address import MacAddressDetector
from services.guardrail.detectors.name import NameDetector
from services.guardrail.detectors.national_id import NationalIdDetector
from services.guardrail.detectors.passport import PassportDetector
from services.guardrail.detectors.url import UrlDetector
from services.guardrail.normalizing import normalize

TOLD = 0.7
"""The packaged policy's `min_score` of most of these detectors."""


def found(detector: Detector, text: str) -> list[str]:
    """The pieces of the text that the detector tells."""
    findings = detector.find(Subject(Surface.INPUT, normalize(text)))
    spans = sorted(finding.span for finding in findings if finding.span and finding.score >= TOLD)
    return [text[span.start : span.end] for span in spans]


@pytest.mark.parametrize(
    ("rule", "text", "number"),
    [
        ("uk_nhs", "my NHS number is 943 476 5919", "943 476 5919"),
        ("uk_nino", "NI: AB 12 34 56 C", "AB 12 34 56 C"),
        ("fr_nir", "numéro 2 55 08 14 168 025 38", "2 55 08 14 168 025 38"),
        ("de_tax", "Steuer-ID 36 574 261 809", "36 574 261 809"),
        ("es_dni", "DNI 54362315K", "54362315K"),
        ("es_nie", "X-2482300-W", "X-2482300-W"),
        ("it_fiscal", "RCCMNL83S18D969H", "RCCMNL83S18D969H"),
        ("nl_bsn", "BSN 111222333", "111222333"),
        ("be_nrn", "85.07.30-033.28", "85.07.30-033.28"),
        ("ch_ahv", "756.9217.0769.85", "756.9217.0769.85"),
        ("pl_pesel", "PESEL: 44051401359", "44051401359"),
        ("se_personnummer", "880320-0016", "880320-0016"),
        ("no_fnr", "fødselsnummer 15108695088", "15108695088"),
        ("fi_hetu", "131052-308T", "131052-308T"),
        ("cz_rc", "710319/2745", "710319/2745"),
        ("ro_cnp", "CNP 1630615123457", "1630615123457"),
        ("us_itin", "912-90-3456", "912-90-3456"),
        ("ca_sin", "my SIN is 123-456-782", "123-456-782"),
        ("br_cpf", "390.533.447-05", "390.533.447-05"),
        ("mx_curp", "BOXW310820HNERXN09", "BOXW310820HNERXN09"),
        ("in_aadhaar", "Aadhaar 2341 2341 2346", "2341 2341 2346"),
        ("in_pan", "PAN ABCPE1234F", "ABCPE1234F"),
        ("cn_id", "11010519491231002X", "11010519491231002X"),
        ("sg_nric", "S1234567D", "S1234567D"),
        ("tr_tckn", "TC kimlik 10000000146", "10000000146"),
        ("za_id", "South African ID 8001015009087", "8001015009087"),
        ("au_tfn", "tax file number 123 456 782", "123 456 782"),
    ],
)
def test_national_ids_are_found_by_their_plan(rule: str, text: str, number: str) -> None:
    """Each plan's sample number is found whole, under its plan's rule or one that shares its form."""
    findings = NationalIdDetector().find(Subject(Surface.INPUT, normalize(text)))
    told = {text[one.span.start : one.span.end]: one for one in findings if one.span and one.score >= TOLD}
    assert list(told) == [number]
    assert told[number].rule == f"pii.national_id.{rule}"


@pytest.mark.parametrize(
    "text",
    [
        "943 476 5919 items and 44051401359 rows",
        "390.533.447-06 and 54362315A and RCCMNL83S18D969X and 756.9217.0769.86",
        "my NHS number is 943 476 5918",
        "build 20241005123456 of 2024-10-05, 12345678",
        "commit S1234567 of T0000000, AB123456X",
    ],
)
def test_numbers_that_no_plan_proves_are_left_alone(text: str) -> None:
    """Wrong check digits, impossible days and weak forms without a word are no national ids."""
    assert found(NationalIdDetector(), text) == []


@pytest.mark.parametrize(
    ("detector", "text", "expected"),
    [
        (BankAccountDetector(), "account number: 12345678, sort code 20-00-00", ["12345678", "20-00-00"]),
        (BankAccountDetector(), "routing number 021000021", ["021000021"]),
        (BankAccountDetector(), "my checking account 0001234567", ["0001234567"]),
        (BankAccountDetector(), "routing number 021000022 and 12345678 accounts", []),
        (BankAccountDetector(), "account number 4111 1111 1111 1111", []),
        (BankAccountDetector(), "for your account number, call 1-800-300-5616", []),
        (PassportDetector(), "Passport No. 912803456 and passport C01X00T47", ["912803456", "C01X00T47"]),
        (PassportDetector(), "my passport number is AB1234567.", ["AB1234567"]),
        (PassportDetector(), "my passport was stolen. Order 912803456 came", []),
        (PassportDetector(), "passport in 2024", []),
        (DriverLicenseDetector(), "driver's license F162823540116", ["F162823540116"]),
        (DriverLicenseDetector(), "driving licence number MORGA753116SM9IJ", ["MORGA753116SM9IJ"]),
        (DriverLicenseDetector(), "MIT license 2024 and 12345678 drivers", []),
        (DateOfBirthDetector(), "DOB: 12/05/1980", ["12/05/1980"]),
        (DateOfBirthDetector(), "I was born on May 12th, 1980", ["May 12th, 1980"]),
        (DateOfBirthDetector(), "Einstein was born on 14 March 1879; released 2024-10-05", []),
        (CryptoAddressDetector(), "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", ["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"]),
        (
            CryptoAddressDetector(),
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            ["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"],
        ),
        (
            CryptoAddressDetector(),
            "0x52908400098527886E0F7030069857D2E4169EE7",
            ["0x52908400098527886E0F7030069857D2E4169EE7"],
        ),
        (CryptoAddressDetector(), "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb 0x" + "0" * 40, []),
        (MacAddressDetector(), "at 00:1A:2B:3C:4D:5E and 001a.2b3c.4d5e", ["00:1A:2B:3C:4D:5E", "001a.2b3c.4d5e"]),
        (MacAddressDetector(), "ff:ff:ff:ff:ff:ff 00:00:00:00:00:00 01:00:5e:00:00:fb 10:20:30:40:50:60:70", []),
        (UrlDetector(), "(see https://a.example/x_(y)?q=1).", ["https://a.example/x_(y)?q=1"]),
        (UrlDetector(), "www.ueberlin.de, and python.org", ["www.ueberlin.de", "python.org"]),
        (UrlDetector(), "os.path.join(a.b) and me@python.org and setup.py", []),
        (NameDetector(), "My name is Ada Lovelace and I ask", ["Ada Lovelace"]),
        (NameDetector(), "Dr. Grace B. Hopper met Mr van", ["Grace B. Hopper"]),
        (NameDetector(), "Dear Ms. Curie,\nhi\nBest regards,\nMarie Curie", ["Curie", "Marie Curie"]),
        (NameDetector(), "Dear All,\nHello World!\nThanks,\nthe team", []),
    ],
)
def test_context_tells_what_a_number_is(detector: Detector, text: str, expected: list[str]) -> None:
    """Forms without check digits are found where a word announces them, and not elsewhere."""
    assert found(detector, text) == expected
