"""What is taken in as a Message Batch, and what is refused, by its place."""

import json
from typing import Any

import pytest

from stationmaster.batches.intake import read_message_batch
from stationmaster.kernel.errors import Invalid

PARAMS = {"model": "haiku", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


def batch(*requests: Any) -> bytes:
    return json.dumps({"requests": requests}).encode()


def request(custom_id: str = "a", **params: Any) -> Any:
    return {"custom_id": custom_id, "params": {**PARAMS, **params}}


def test_parameters_stay_as_they_came() -> None:
    raw = (
        b'{"requests":[{"custom_id":"a","params":{"model":"m","max_tokens":1,'
        b'"messages":[{}],  "new":1.0e2}}]}'
    )
    (found,) = read_message_batch(raw)
    assert found.custom_id == "a"
    assert found.body == '{"model":"m","max_tokens":1,"messages":[{}],  "new":1.0e2}'


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        pytest.param(b"{", None, id="no json"),
        pytest.param(b'{"requests":[{"custom_id":"a","params":' + b"[" * 100_000, None, id="deep"),
        pytest.param(b'{"requests":[]}', "requests", id="empty"),
        pytest.param(b'{"requests":{}}', "requests", id="no list"),
        pytest.param(b'{"requests":[],"other":1}', "requests", id="unknown member"),
        pytest.param(batch({"custom_id": "a"}), "requests", id="no params"),
        pytest.param(batch(request("")), "requests.0.custom_id", id="empty id"),
        pytest.param(batch(request("a/b")), "requests.0.custom_id", id="odd id"),
        pytest.param(batch(request("x" * 65)), "requests.0.custom_id", id="long id"),
        pytest.param(batch(request(), request()), "requests.1.custom_id", id="same id"),
        pytest.param(batch(request(model=None)), "requests.0.params", id="no model"),
        pytest.param(batch(request(max_tokens="9")), "requests.0.params", id="wrong tokens"),
        pytest.param(batch(request(messages=[])), "requests.0.params.messages", id="no message"),
        pytest.param(batch(request(stream=True)), "requests.0.params.stream", id="stream"),
        pytest.param(
            batch(request()).replace(b'"haiku"', b'"\xff"'), "requests.0.params", id="no utf-8"
        ),
    ],
)
def test_what_could_never_be_made_is_refused(raw: bytes, param: str | None) -> None:
    with pytest.raises(Invalid) as refused:
        read_message_batch(raw)
    assert refused.value.param == param
