"""Asks a server on loopback whether it answers. Used by `supervisor.py` and by the native servers."""

import urllib.error
import urllib.request
from http import HTTPStatus

from services.local.layout import HOST

_ANSWER_S = 2.0


def answers_http(port: int, path: str) -> bool:
    """Whether `GET path` is answered with 200 now. Blocking, 2 s at most."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=_ANSWER_S) as response:  # loopback
            return bool(response.status == HTTPStatus.OK)
    except (OSError, urllib.error.URLError):
        return False
