"""All plans of personal numbers, the most telling first. Pure; used by `national_id.py`."""

from services.guardrail.detectors.national import americas, asia_africa_oceania, europe_north_east, europe_west

ALL_PLANS = tuple(
    sorted(
        (*europe_west.PLANS, *europe_north_east.PLANS, *americas.PLANS, *asia_africa_oceania.PLANS),
        key=lambda plan: -plan.alone,
    )
)
