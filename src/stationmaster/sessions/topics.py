"""Where a run's executor listens, and where an environment's workers do."""


def control_topic(run_id: str) -> str:
    """Told of cancellations, interrupts and answers: a wake-up, the truth is in the database."""
    return f"run:{run_id}"


def work_topic(environment_id: str) -> str:
    """Told that there is work in an environment's queue: a wake-up, as above."""
    return f"work:{environment_id}"
