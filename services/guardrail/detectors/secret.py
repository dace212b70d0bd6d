"""Finds credentials by their forms and by their names. Pure; one of `catalogue.py`'s detectors.

Most patterns are detect-secrets', the matching is RE2's: under Python's `re` several of them take seconds on a
long hostile line. Its entropy and keyword plugins are left out: they fire on prose and on documentation.
`secret_forms.py` adds the forms it lacks, `secret_assigned.py` the values that stand under a secret's name.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version as installed_version

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.private_key import PrivateKeyDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from servicekit.domain.verdict import Finding, Span
from services.guardrail.detectors.detector import EVERY_SURFACE, Subject
from services.guardrail.detectors.secret_assigned import assigned_secrets
from services.guardrail.detectors.secret_forms import FORMS
from services.guardrail.linear import LinearPattern, LinearSet

_URL_RULE = "secret.url_credentials"
_PLUGINS: Mapping[str, type[RegexBasedDetector]] = {
    "secret.aws": AWSKeyDetector,
    "secret.azure_storage_key": AzureStorageKeyDetector,
    "secret.discord_token": DiscordBotTokenDetector,
    "secret.github_token": GitHubTokenDetector,
    "secret.gitlab_token": GitLabTokenDetector,
    "secret.jwt": JwtTokenDetector,
    "secret.mailchimp_key": MailchimpDetector,
    "secret.npm_token": NpmDetector,
    "secret.openai_key": OpenAIDetector,
    "secret.private_key": PrivateKeyDetector,
    "secret.pypi_token": PypiTokenDetector,
    "secret.sendgrid_key": SendGridDetector,
    "secret.slack_token": SlackDetector,
    "secret.square_token": SquareOAuthDetector,
    "secret.stripe_key": StripeDetector,
    "secret.telegram_token": TelegramBotTokenDetector,
    "secret.twilio_key": TwilioKeyDetector,
    _URL_RULE: BasicAuthDetector,
}
_KEY_END = LinearPattern(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_KEY_LINE = LinearPattern(r"[A-Za-z0-9+/=]{32,}")
_KEY_LINES = LinearPattern(r"^-*(?:(?:\s|\\r|\\n)*[A-Za-z0-9+/=]{32,})+(?:(?:\s|\\r|\\n)*[A-Za-z0-9+/]+={1,2})?")
_LONGEST_KEY = 16_384
_TOKEN_REST = LinearPattern(r"^[A-Za-z0-9_=\-]*(?:\.[A-Za-z0-9_=\-]+)*")
_LONGEST_TOKEN = 8_192
_PLACEHOLDERS = LinearPattern(
    r"^(?:\*+|x+|\.+|pass(?:word|wd)?|pw|secret|token|key|<.*|\$.*|\{.*|%.*)$", ignore_case=True
)


class SecretDetector:
    """Keys and tokens whose form gives them away, private keys, JSON web tokens, and `scheme://user:password@`."""

    id = "secret"
    version = f"2+detect-secrets-{installed_version('detect-secrets')}"
    surfaces = EVERY_SURFACE
    redacts = True
    options_model = None

    def __init__(self) -> None:
        kept = [(rule, source) for rule, plugin in _PLUGINS.items() for source in _sources(plugin)]
        own = [(rule, source) for rule, sources in FORMS.items() for source in sources]
        patterns = [*kept, *own]
        self._rules = tuple(rule for rule, _ in patterns)
        self._groups = tuple(int(rule == _URL_RULE) for rule, _ in kept) + (1,) * len(own)
        self._patterns = tuple(LinearPattern(source) for _, source in patterns)
        self._any = LinearSet([source for _, source in patterns])

    def find(self, subject: Subject) -> Iterator[Finding]:
        """Every credential in any view of the text, score 0.95, or 0.9 by its name alone; the span holds all of it."""
        told: set[Span] = set()
        for view in subject.views:
            for rule, score, place in self._credentials(view.text):
                span = subject.in_text(view, place)
                if span not in told and span.start < span.end:
                    told.add(span)
                    yield Finding(rule, score, span, "SECRET", "A credential.")

    def _credentials(self, text: str) -> Iterator[tuple[str, float, Span]]:
        for position in self._any.matching(text):
            rule = self._rules[position]
            done = 0
            for span in self._patterns[position].spans(text, group=self._groups[position]):
                if span.start < done:
                    continue
                whole = _whole(rule, text, span)
                done = whole.end
                if _is_genuine(rule, text[whole.start : whole.end]):
                    yield rule, 0.95, whole
        for rule, span in assigned_secrets(text):
            yield rule, 0.9, span


def _sources(plugin: type[RegexBasedDetector]) -> Iterator[str]:
    """A plugin's expressions in RE2's syntax, their flags written out."""
    expressions: Iterable[re.Pattern[str]] = vars(plugin)["denylist"]  # declared as a property of instances
    for pattern in expressions:
        source = pattern.pattern.replace(r"(?!\w)", r"\b").replace("{50,1024}", "{50,1000}")
        yield f"(?i){source}" if pattern.flags & re.IGNORECASE else source


def _whole(rule: str, text: str, span: Span) -> Span:
    """The credential to its end: plugins stop at a key's first line and before a token's signature."""
    if rule == "secret.private_key":
        behind = text[span.end : span.end + _LONGEST_KEY]
        rest = _KEY_END.first(behind) or _KEY_LINES.first(behind)
    elif rule == "secret.jwt":
        rest = _TOKEN_REST.first(text[span.end : span.end + _LONGEST_TOKEN])
    else:
        rest = None
    return Span(span.start, span.end + rest.end) if rest else span


def _is_genuine(rule: str, secret: str) -> bool:
    """Leave out a key's name without a key, a token that does not decode, a password that stands for one."""
    if rule == "secret.private_key":
        return _KEY_LINE.first(secret) is not None
    if rule == "secret.jwt":
        return JwtTokenDetector.is_formally_valid(secret)
    return not (rule == _URL_RULE and _PLACEHOLDERS.first(secret))
