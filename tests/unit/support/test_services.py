import pytest

from tests.support.services import missing, require


@pytest.mark.parametrize("value", [None, "", "false"])
def test_on_a_developers_machine_a_missing_service_skips_by_name(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    with pytest.raises(pytest.skip.Exception, match="rabbitmq is missing"):
        missing("rabbitmq")


def test_in_ci_a_missing_service_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is missing"):
        require("no-such-program")


def test_a_program_that_is_there_is_found() -> None:
    assert require("sh").endswith("/sh")
