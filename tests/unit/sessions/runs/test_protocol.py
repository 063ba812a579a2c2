"""The protocol of claims, leases and epochs, explored whole; each wrong way to build it, found."""

from typing import get_args

import pytest

from tests.unit.sessions.runs.protocol import OF_MESSAGES, Design, Fault, Model

FAULTS = [fault for fault in get_args(Fault) if fault != "none"]


@pytest.mark.parametrize(
    ("design", "runs", "troubles"), [("doorbell", 1, 4), ("doorbell", 2, 1), ("messages", 1, 3)]
)
def test_no_order_of_events_breaks_a_promise(design: Design, runs: int, troubles: int) -> None:
    found, worlds = Model(design, runs=runs, troubles=troubles).explore()
    assert found is None
    assert worlds > 4_000  # it did look around


@pytest.mark.parametrize("fault", FAULTS)
def test_each_wrong_protocol_is_found(fault: Fault) -> None:
    design: Design = "messages" if fault in OF_MESSAGES else "doorbell"
    found, _ = Model(design, fault, runs=1, troubles=3).explore()
    assert found is not None


@pytest.mark.parametrize("fault", OF_MESSAGES)
def test_who_looks_for_himself_loses_nothing_with_a_message(fault: Fault) -> None:
    found, _ = Model("doorbell", fault, runs=1, troubles=3).explore()
    assert found is None
