"""Money: whole micro-dollars, no float on the way, no overflow, the same in any order."""

import ast
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stationmaster.budgets
from stationmaster.budgets import Budgets, Definitions, Usage
from stationmaster.budgets.definition import MAX_LIMIT
from stationmaster.budgets.entry import LedgerEntry
from stationmaster.budgets.proof import prove
from stationmaster.gateway.pricing import Price, total
from stationmaster.http.routes.budgets import _dollars, _micros
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import PER_DOLLAR, parse_dollars, to_dollars, to_micros
from stationmaster.storage import Database
from tests.unit.budgets.support import balance, call, set_budget, use

TOKENS = st.integers(0, 10**9)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS)
RATES = st.decimals(Decimal(0), Decimal(1000), places=4)
PRICES = st.builds(Price, RATES, RATES, RATES, RATES, RATES)
MICROS = st.integers(0, MAX_LIMIT)


@given(USAGES, USAGES, USAGES)
def test_usages_add_up_the_same_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Usage() == a
    assert (a + b).total == a.total + b.total


@given(PRICES, st.lists(USAGES, min_size=1, max_size=5))
def test_a_cost_is_summed_exactly_and_rounded_up_once(price: Price, usages: list[Usage]) -> None:
    parts = [price.dollars(usage) for usage in usages]
    exact = sum(parts, Decimal(0))
    billed = total(parts)
    assert isinstance(billed, int)
    assert 0 <= billed - exact * PER_DOLLAR < 1
    assert total(list(reversed(parts))) == billed
    # Billed apart, calls cost no less than together, and less than a micro-dollar more each.
    apart = sum(total([part]) for part in parts)
    assert billed <= apart < billed + len(parts)


@given(MICROS)
def test_an_amount_goes_out_and_comes_back_the_same(micros: int) -> None:
    assert parse_dollars(_dollars(micros), param="x") == micros
    assert _micros(_dollars(micros), "x") == micros
    assert parse_dollars(to_dollars(micros), param="x") == micros
    assert to_micros(Decimal(micros) / PER_DOLLAR) == micros
    assert "." in _dollars(micros)
    assert len(_dollars(micros).partition(".")[2]) >= 2


@pytest.mark.parametrize(
    ("text", "micros"),
    [("0", 0), ("0.05", 50_000), ("0.000001", 1), ("1e2", 10**8), (0.1, 100_000), (3, 3 * 10**6)],
)
def test_limits_are_read_as_they_are_written(text: str | int | float, micros: int) -> None:
    assert _micros(text, "limit_usd") == micros


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "nan", "inf", "1e99", "0.0000001", "1,5", "1_0e", "0.1234567", "$5"]
)
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(Invalid):
        _micros(text, "limit_usd")


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_entrys_tokens_are_its_usage_or_what_was_lost(used: int, lost: int) -> None:
    assert LedgerEntry(call(), 0, Usage(used), 1, "unknown", 0, lost).tokens == used + lost


async def test_the_largest_amounts_fit(
    database: Database, budgets: Budgets, definitions: Definitions
) -> None:
    dollars = await set_budget(definitions, "key", "key_1", MAX_LIMIT)
    tokens = await set_budget(definitions, "key", "key_1", MAX_LIMIT, unit="tokens")
    huge = MAX_LIMIT // 2
    for _ in range(2):
        await use(budgets, call(), huge, usage=Usage(huge))
    assert await balance(definitions, dollars) == await balance(definitions, tokens)
    assert await balance(definitions, dollars) == (MAX_LIMIT, 0)
    assert (await prove(database)).differences == ()
    # A soft budget may go beyond its limit a thousand times over.
    soft = await set_budget(definitions, "key", "key_2", 1, mode="soft")
    for _ in range(8):
        await use(budgets, call(key_id="key_2"), MAX_LIMIT)
    assert await balance(definitions, soft) == (8 * MAX_LIMIT, 0)


def test_no_float_in_the_books() -> None:
    for path in Path(stationmaster.budgets.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if path.name != "rollup.py":  # how often it runs, in seconds
                assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), path
            assert not (isinstance(node, ast.Name) and node.id == "float"), path


# Where an amount of money is made, held, kept or shown, beside the books themselves.
MONEY = (
    "kernel/money.py",
    "gateway/pricing.py",
    "gateway/admission.py",
    "http/routes/budgets.py",
    "http/shapes/budget.py",
    "http/shapes/spending.py",
    "http/routes/managed/money.py",
    "http/routes/managed/organization/spending.py",
    "http/routes/managed/organization/reports.py",
    "sessions/runs/settlement.py",
)
EXACT = {
    "micros / PER_DOLLAR": "what is shown: to a billion dollars every digit is right",
    "now / 1000": "a moment",
    "tokens / PER_TOKENS": "of decimals",
    "found / PER_TOKENS": "of decimals",
    "Decimal(left) / self._output": "of decimals",
    "_SEARCH_PER_THOUSAND / 1000": "of decimals",
    "per_thousand / 1000": "of decimals",
    "Decimal(amount) / PER_CENT": "of decimals",
}


@pytest.mark.parametrize("name", MONEY)
def test_no_float_wherever_money_goes(name: str) -> None:
    path = Path(stationmaster.budgets.__file__).parents[1] / name
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"float", "round"}, ast.unparse(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            text = ast.unparse(node)
            exact = text in EXACT or text.endswith(") / PER_TOKENS")
            assert exact, f"{name} line {node.lineno}: {text}: is it of decimals?"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            sides = (node.left, node.right)
            assert not any(
                isinstance(side, ast.Constant) and isinstance(side.value, float) for side in sides
            ), ast.unparse(node)
