"""Where a run's executor listens."""


def control_topic(run_id: str) -> str:
    """Told of cancellations, interrupts and answers: a wake-up, the truth is in the database."""
    return f"run:{run_id}"
