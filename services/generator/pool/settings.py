"""How a pool behaves; the defaults suit servers with continuous batching.

Pure; made by the generator's bootstrap from the models file, read by the rest of the pool.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from servicekit.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Bounds and times of a pool.

    `max_concurrent` bounds the leases of one replica at once (0: what the engine tells of itself, else
    `unknown_concurrent`), `max_waiting` those that wait for a place. A tenant's share under load follows its weight, 1
    where none is given.

    Raises:
        InvalidRequest: a value is out of its bounds; the field is named `pool.<name>`.
    """

    max_concurrent: int = 0
    unknown_concurrent: int = 64
    max_waiting: int = 512
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    hedging: bool = False
    # Of so many drawn by chance the one with the shortest wait is taken. A small pool is compared whole: where one of
    # four is slow and one fails, two drawn are both of these once in six times, and its waits are known well enough.
    choices: int = 2
    small_pool: int = 4
    affinity: bool = True
    # A replica that has the prefix is taken unless its wait exceeds the other choice's by this factor and margin.
    affinity_cap: float = 1.25
    affinity_margin_s: float = 0.02
    affinity_blocks: int = 65_536
    # Ejection: so many points in a row (a failure is one, no connection three), or such a share of recent work; or
    # first tokens so many times later than the pool's, where that is more than a second.
    failures_in_a_row: int = 5
    failure_share: float = 0.6
    slow_factor: float = 10.0
    ejected_s: float = 1.0
    max_ejected_s: float = 60.0
    max_ejected_share: float = 0.5
    load_every_s: float = 0.5
    info_every_s: float = 60.0
    check_every_s: float = 2.0
    discover_every_s: float = 5.0
    poll_within_s: float = 2.0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("max_concurrent", self.max_concurrent, 0, 100_000),
            ("max_waiting", self.max_waiting, 0, 100_000),
            ("max_ejected_share", self.max_ejected_share, 0, 1),
            ("failure_share", self.failure_share, 0.01, 1),
            ("choices", self.choices, 1, 1_000),
            ("affinity_cap", self.affinity_cap, 1, 100),
            ("load_every_s", self.load_every_s, 0.01, 3_600),
            ("discover_every_s", self.discover_every_s, 0.1, 3_600),
        ):
            if not least <= value <= most:
                raise InvalidRequest(f"pool.{name} must be {least} to {most}, got {value!r}", field=f"pool.{name}")
        for tenant, weight in self.tenant_weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise InvalidRequest(
                    f"pool.tenant_weights[{tenant!r}] must be over 0, got {weight!r}", field="pool.tenant_weights"
                )
