"""The span of time and the tenant that a question is about, and the marks of a page. Pure; used by every query."""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from servicekit.errors import InvalidRequest

MAX_DAYS = 400
_DEFAULT_SPAN = timedelta(hours=24)
_TOKEN_PARTS = 6


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` on, before `end`; both aware, in UTC."""

    start: datetime
    end: datetime


def make_window(start: datetime | None, end: datetime | None, *, now: datetime) -> Window:
    """The window asked for; the last 24 hours where nothing is said.

    Raises:
        InvalidRequest: it ends before it starts, or is longer than 400 days.
    """
    chosen_end = end or now
    window = Window(start=start or chosen_end - _DEFAULT_SPAN, end=chosen_end)
    if window.start >= window.end:
        raise InvalidRequest(
            f"start_time must be before end_time, got {window.start.isoformat()} and {window.end.isoformat()}",
            field="start_time",
        )
    if window.end - window.start > timedelta(days=MAX_DAYS):
        raise InvalidRequest(
            f"start_time must be at most {MAX_DAYS} days before end_time, got {window.start.isoformat()} and "
            f"{window.end.isoformat()}",
            field="start_time",
        )
    return window


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Whose rows may be seen: one tenant's, or all (`tenant` None) with the scope admin."""

    tenant: str | None

    @property
    def condition(self) -> str:
        """A condition on the column `tenant`; its parameter is in `parameters`."""
        return "tenant = {tenant:String}" if self.tenant is not None else "1"

    @property
    def parameters(self) -> dict[str, str]:
        """What `condition` needs bound."""
        return {"tenant": self.tenant} if self.tenant is not None else {}


@dataclass(frozen=True, slots=True)
class Page:
    """A list's filters and the row after which it goes on, newest first."""

    window: Window
    route: str
    conversation_id: str
    after_time: datetime | None = None
    after_id: str = ""

    def token(self) -> str:
        """This page as text that a caller hands back."""
        assert self.after_time is not None
        parts = [
            self.window.start.isoformat(),
            self.window.end.isoformat(),
            self.route,
            self.conversation_id,
            self.after_time.isoformat(),
            self.after_id,
        ]
        return make_token(parts)


def read_page_token(token: str) -> Page:
    """The page that a token stands for.

    Raises:
        InvalidRequest: it is none that `Page.token` made.
    """
    with refused_tokens(token):
        start, end, route, conversation_id, after_time, after_id = token_parts(token, count=_TOKEN_PARTS)
        window = Window(start=read_moment(start), end=read_moment(end))
        after = read_moment(after_time)
    return Page(window=window, route=route, conversation_id=conversation_id, after_time=after, after_id=after_id)


@contextmanager
def refused_tokens(token: str) -> Iterator[None]:
    """Refuse a token that the block cannot read.

    Raises:
        InvalidRequest: names the token.
    """
    try:
        yield
    except (ValueError, UnicodeEncodeError, binascii.Error, RecursionError) as error:
        raise InvalidRequest(
            f"page_token must be a next_page_token of an earlier answer, got {token[:40]!r}", field="page_token"
        ) from error


def make_token(parts: Sequence[str]) -> str:
    """Parts as text that a caller hands back."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def token_parts(token: str, *, count: int) -> Sequence[str]:
    """The parts of a token; ValueError, or one of its kind, where it has not so many."""
    parts = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    if not isinstance(parts, list) or len(parts) != count or not all(isinstance(part, str) for part in parts):
        raise ValueError(parts)
    return parts


def read_moment(text: str) -> datetime:
    """The time that a token's part states, in UTC; ValueError where it is none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(UTC)
