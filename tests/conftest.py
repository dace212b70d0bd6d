"""Settings of all tests: hypothesis draws the same examples in every run, so that a red test is about the change.

`HYPOTHESIS_PROFILE=explore make test` draws new ones, ten times as many; what it finds belongs into a test of its own.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
