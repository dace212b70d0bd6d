"""Who may ask the embedded ClickHouse. Pure; checked by `services.local.clickhouse.http` on every query."""

import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask: without a password anyone on this machine, as for a fresh ClickHouse."""

    user: str = "default"
    password: str = ""

    def trusts_page(self, origin: str | None) -> bool:
        """Whether a request that a browser sent for a page may be answered; only where a password is asked for."""
        return bool(self.password) or not origin

    def allows(self, user: str, password: str) -> bool:
        """Whether the credentials are right; takes the same time for right and wrong ones."""
        if not self.password:
            return True
        same_user = hmac.compare_digest(user.encode(), self.user.encode())
        same_password = hmac.compare_digest(password.encode(), self.password.encode())
        return same_user and same_password
