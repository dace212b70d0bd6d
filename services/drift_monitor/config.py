"""Settings of the drift monitor. Read once at start by the runtime."""

from datetime import timedelta

from pydantic import Field

from servicekit.runtime.settings import ServiceSettings, settings_config
from services.drift_monitor.judging import Strictness
from services.drift_monitor.windows import WindowSizes


class Settings(ServiceSettings):
    """Environment prefix `BINNACLE_DRIFT_MONITOR__`."""

    model_config = settings_config("drift_monitor")

    port: int = 7705
    analytics_store_url: str = Field(
        default="clickhouse://127.0.0.1:8123/binnacle", description="where windows and alerts are rebuilt from"
    )
    reference_size: int = Field(default=30, ge=2, description="requests of a segment's reference window")
    current_size: int = Field(default=20, ge=2, description="requests of a current window")
    min_size: int = Field(default=10, ge=2, description="values from which on a window is tested")
    span_s: float = Field(default=3600.0, gt=0, description="no current window crosses a multiple of this")
    kept_requests: int = Field(default=2_000, ge=40, description="requests remembered behind a reference")
    alpha: float = Field(default=0.001, gt=0, lt=1, description="risk of a false alarm per test of a window")
    min_effect: float = Field(default=0.8, ge=0, description="least shift, in reference standard deviations")
    evaluate_interval_s: float = Field(default=2.0, gt=0, description="least time between two evaluations")
    laboratory_timeout_s: float = Field(default=60.0, gt=0, description="for one question to Evidently")
    max_report_bytes: int = Field(default=8 * 1024 * 1024, ge=1, description="of one drift report")
    restore_span_s: float = Field(default=86_400.0, gt=0, description="how far back windows are rebuilt")
    restore_patience_s: float = Field(
        default=60.0, ge=0, description="how long judging waits for the analytics store before it starts without"
    )
    reconcile_after_s: float = Field(
        default=15.0, ge=0, description="until the second reading, for events that were still on their way"
    )

    @property
    def sizes(self) -> WindowSizes:
        """How windows are cut."""
        return WindowSizes(
            reference_size=self.reference_size,
            current_size=self.current_size,
            min_size=self.min_size,
            span=timedelta(seconds=self.span_s),
            kept=self.kept_requests,
        )

    @property
    def strictness(self) -> Strictness:
        """When a difference is drift."""
        return Strictness(alpha=self.alpha, min_effect=self.min_effect)
