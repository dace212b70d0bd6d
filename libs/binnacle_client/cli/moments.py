"""Reads the times that people give to commands. Pure; used by `completing.py` and `documents.py`."""

import re
from datetime import UTC, datetime, timedelta

import click

_CLOCK = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?")


def read_moment(text: str, *, latest: datetime, option: str) -> datetime:
    """`14:00`: the newest one not behind `latest`; or an ISO 8601 time. UTC where nothing else is said.

    Raises:
        click.BadParameter: it is neither.
    """
    try:
        match = _CLOCK.fullmatch(text.strip())
        if match is None:
            moment = datetime.fromisoformat(text.strip())
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        hour, minute, second = (int(part or 0) for part in match.groups())
        moment = latest.astimezone(UTC).replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError as error:
        raise click.BadParameter(
            f"must be a time such as 14:00 or 2026-05-01T14:00, in UTC unless it says otherwise, got {text!r}",
            param_hint=option,
        ) from error
    return moment if moment <= latest else moment - timedelta(days=1)
