"""The protocol of holds, explored whole; and each wrong way to build it, found."""

from typing import get_args

import pytest

from tests.unit.budgets.protocol import Fault, explore


def test_no_order_of_events_breaks_a_promise() -> None:
    found, worlds = explore()
    assert found is None
    assert worlds > 4_000  # it did look around


@pytest.mark.parametrize("fault", [fault for fault in get_args(Fault) if fault != "none"])
def test_each_wrong_protocol_is_found(fault: Fault) -> None:
    found, _ = explore(fault)
    assert found is not None
