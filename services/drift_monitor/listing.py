"""Pages of alerts, newest first. Pure; called by `server.py`."""

from collections.abc import Sequence

from servicekit.errors import InvalidRequest
from services.drift_monitor.alerts import Alert, AlertState

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500


def list_alerts(
    alerts: Sequence[Alert], *, state: AlertState | None, page_size: int, page_token: str
) -> tuple[Sequence[Alert], str]:
    """One page, by latest change, and the token of the next (empty: this was the last).

    The token is the cursor of the page's last alert: what changes between two pages moves to the first page,
    and nothing is listed twice.

    Raises:
        InvalidRequest: page_size or page_token is none.
    """
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidRequest(
            f"page_size must be 1..{MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}, got {page_size}",
            field="page_size",
        )
    before = _cursor_of(page_token)
    newest_first = sorted(alerts, key=lambda alert: alert.cursor, reverse=True)
    found = [
        alert
        for alert in newest_first
        if (state is None or alert.state is state) and (before is None or alert.cursor < before)
    ]
    page = found[: page_size or DEFAULT_PAGE_SIZE]
    return page, str(page[-1].cursor) if len(page) < len(found) else ""


def _cursor_of(page_token: str) -> int | None:
    if not page_token:
        return None
    if not (page_token.isascii() and page_token.isdigit() and len(page_token) < 20):  # noqa: PLR2004  # digits of 2^63
        raise InvalidRequest(
            f"page_token must be the next_page_token of a page, got {page_token[:32]!r}", field="page_token"
        )
    return int(page_token)
