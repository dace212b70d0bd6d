"""Metrics of the guardrail: declared here, set where things happen."""

from servicekit.telemetry.metrics import counter, gauge, histogram

# From the arrival of a check in the domain to its judgement, publishing apart.
CHECK_SECONDS = histogram("guardrail_check", meaning="Time to judge one check.", labels=("surface",))
# One per check: what came of it.
CHECKS = counter("guardrail_checks", meaning="Checks by surface and action.", labels=("surface", "action"))
# One per verdict told.
VERDICTS = counter("guardrail_verdicts", meaning="Verdicts by detector and action.", labels=("detector", "action"))
# The detector raised, or did not answer in time; the policy decided.
DETECTOR_FAILURES = counter("guardrail_detector_failures", meaning="Detectors that failed.", labels=("detector",))
# One text judged by one detector; `reading` is its normalisation.
DETECTOR_SECONDS = histogram("guardrail_detector", meaning="Time of one detector for one text.", labels=("detector",))
# Given up because their detector did not come back; it is not asked while too many hang in it.
THREADS_STUCK = gauge("guardrail_threads_stuck", meaning="Threads that hang in a detector.", labels=("detector",))
# Texts whose vector was still known, of all that detectors wanted embedded.
EMBEDDINGS = counter("guardrail_embeddings", meaning="Texts to embed.", labels=("outcome",))
# Retrieved texts judged from memory, of all retrieved texts that could be.
CACHE = counter("guardrail_cache", meaning="Look-ups of kept judgements.", labels=("outcome",))
# Decisions accepted and not yet acknowledged by the bus.
DECISIONS_PENDING = gauge("guardrail_decisions_pending", meaning="Decisions not yet acknowledged.", unit="events")
# Decisions given up: refused for good by the bus, or not acknowledged before the process ended.
DECISIONS_LOST = counter("guardrail_decisions_lost", meaning="Decisions never acknowledged.", unit="events")
# The vault was away or would not open: what was redacted meanwhile cannot be put back.
VAULT_FAILURES = counter("guardrail_vault_failures", meaning="Failed uses of the vault.", labels=("reason",))
# Placeholders whose values were put back, and those that stayed as they were.
RESTORED = counter("guardrail_restored", meaning="Placeholders by what became of them.", labels=("outcome",))
# How long the first text of a streamed answer was held back, from its arrival, and how many tokens came meanwhile.
STREAM_FIRST_HELD_SECONDS = histogram("guardrail_stream_first_held", meaning="Time the first text was held back.")
STREAM_FIRST_HELD_TOKENS = histogram(
    "guardrail_stream_first_held_tokens",
    meaning="Tokens that came before the first text was released.",
    unit="",
    buckets=(0, 1, 2, 3, 5, 8, 13, 21, 34),
)
