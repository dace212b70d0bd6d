"""All detectors there are, in the order in which verdicts are listed. Used by `bootstrap.py` and the policies."""

from services.guardrail.detectors.bank_account import BankAccountDetector
from services.guardrail.detectors.card import CardDetector
from services.guardrail.detectors.crypto_address import CryptoAddressDetector
from services.guardrail.detectors.date_of_birth import DateOfBirthDetector
from services.guardrail.detectors.detector import Detector
from services.guardrail.detectors.driver_license import DriverLicenseDetector
from services.guardrail.detectors.email import EmailDetector
from services.guardrail.detectors.groundedness import GroundednessDetector
from services.guardrail.detectors.iban import IbanDetector
from services.guardrail.detectors.indirect_injection import IndirectInjectionDetector
from services.guardrail.detectors.injection.detector import InjectionDetector
from services.guardrail.detectors.ip_address import IpAddressDetector
from services.guardrail.detectors.language import LanguageDetector
from services.guardrail.detectors.leak import LeakDetector
from services.guardrail.detectors.mac_address import MacAddressDetector
from services.guardrail.detectors.missing import DetectorClass, built_or_missing
from services.guardrail.detectors.name import NameDetector
from services.guardrail.detectors.national_id import NationalIdDetector
from services.guardrail.detectors.output_schema import OutputSchemaDetector
from services.guardrail.detectors.passport import PassportDetector
from services.guardrail.detectors.phone import PhoneDetector
from services.guardrail.detectors.secret import SecretDetector
from services.guardrail.detectors.topic import TopicDetector
from services.guardrail.detectors.toxicity import ToxicityDetector
from services.guardrail.detectors.url import UrlDetector
from services.guardrail.detectors.us_ssn import UsSsnDetector

_DETECTORS: tuple[DetectorClass, ...] = (
    InjectionDetector,
    IndirectInjectionDetector,
    ToxicityDetector,
    TopicDetector,
    SecretDetector,
    EmailDetector,
    PhoneDetector,
    CardDetector,
    IbanDetector,
    UsSsnDetector,
    IpAddressDetector,
    NationalIdDetector,
    BankAccountDetector,
    PassportDetector,
    DriverLicenseDetector,
    DateOfBirthDetector,
    CryptoAddressDetector,
    MacAddressDetector,
    UrlDetector,
    NameDetector,
    GroundednessDetector,
    LeakDetector,
    LanguageDetector,
    OutputSchemaDetector,
)


def all_detectors(*made: Detector) -> tuple[Detector, ...]:
    """Those `made` for this deployment, in their places, and fresh ones, their rules loaded and compiled.

    One that cannot be built is there as missing.
    """
    by_id = {detector.id: detector for detector in made}
    return tuple(by_id.get(kind.id) or built_or_missing(kind) for kind in _DETECTORS)
