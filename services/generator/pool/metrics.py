"""Metrics of the pools, labelled by the pool's name: a model alias and the engine's place in its list."""

from servicekit.telemetry.metrics import counter, gauge, histogram

# One per lease that was given.
CHOICES = counter(
    "generator_pool_choices", meaning="Leases by why their replica was chosen.", labels=("pool", "choice")
)
# Reasons: `full`, `too_long`, `timeout`, `shed`, `hedge`.
TURNED_AWAY = counter(
    "generator_pool_turned_away", meaning="Work that got no place, by reason.", labels=("pool", "reason")
)
# Reasons: `failures`, `slow`.
EJECTIONS = counter("generator_pool_ejections", meaning="Replicas ejected, by reason.", labels=("pool", "reason"))
# States as ListModels names them.
REPLICAS = gauge("generator_pool_replicas", meaning="Replicas by state.", labels=("pool", "state"))
WAITING = gauge("generator_pool_waiting", meaning="Work that waits for a place.", labels=("pool",))
OUTSTANDING_TOKENS = gauge(
    "generator_pool_outstanding", meaning="Tokens awaited from all replicas.", unit="tokens", labels=("pool",)
)
# Of work that got a place; 0 where one was free.
WAIT_SECONDS = histogram("generator_pool_wait", meaning="Time until a place was free.", labels=("pool",))
