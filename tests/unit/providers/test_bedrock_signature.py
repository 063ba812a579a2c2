"""Signatures, against AWS's published test suite and against AWS's own library."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as TheirCredentials

from stationmaster.providers.base import Headers
from stationmaster.providers.bedrock.signature import Credentials, Signer

KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
AT = int(datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp() * 1000)
HOST = ("host", "example.amazonaws.com")
FORM = ("content-type", "application/x-www-form-urlencoded")
SESSION = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI"
    "eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0"
    "wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDry"
    "pNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)


def signer(token: str | None = None) -> Signer:
    return Signer(Credentials(KEY, SECRET, token), region="us-east-1", service="service")


@dataclass(frozen=True)
class Vector:
    name: str
    signature: str
    method: str = "POST"
    query: str = ""
    headers: Headers = (HOST,)
    body: bytes = b""
    token: str | None = None


VECTORS = (
    Vector(
        "get-vanilla",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        method="GET",
    ),
    Vector(
        "get-vanilla-query-order-key-case",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        method="GET",
        query="Param1=value1&Param2=value2",
    ),
    Vector("post-vanilla", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    Vector(
        "post-x-www-form-urlencoded",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        headers=(HOST, FORM),
        body=b"Param1=value1",
    ),
    Vector(
        "post-sts-header-before",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        token=SESSION,
    ),
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_the_published_vectors(vector: Vector) -> None:
    signed = signer(vector.token).signed(
        vector.method, "/", vector.query, vector.headers, vector.body, at=AT
    )
    added = dict(signed)
    assert added["x-amz-date"] == "20150830T123600Z"
    assert added.get("x-amz-security-token") == vector.token
    assert added["authorization"].endswith(f"Signature={vector.signature}")


def test_the_published_signing_key() -> None:
    iam = Signer(Credentials(KEY, SECRET), region="us-east-1", service="iam")
    expected = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
    assert iam._signing_key("20150830").hex() == expected


@pytest.mark.parametrize("token", [None, SESSION], ids=["keys", "session"])
@pytest.mark.parametrize(
    "path",
    [
        "/model/us.anthropic.claude-haiku-5-5-v1:0/invoke",
        "/model/arn:aws:bedrock:us-east-1:123:application-inference-profile%2Fab12/invoke",
        "/proxy/a~b/model/claude%20x/invoke-with-response-stream",
    ],
    ids=["profile", "arn", "escaped"],
)
def test_as_their_library_signs(path: str, token: str | None) -> None:
    body = b'{"messages": []}'
    theirs = AWSRequest(
        "POST",
        f"https://bedrock-runtime.us-east-1.amazonaws.com{path}",
        headers={"content-type": "application/json"},
        data=body,
    )
    SigV4Auth(TheirCredentials(KEY, SECRET, token), "bedrock", "us-east-1").add_auth(theirs)
    stamp = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = Signer(Credentials(KEY, SECRET, token), region="us-east-1", service="bedrock")
    headers = (
        ("host", "bedrock-runtime.us-east-1.amazonaws.com"),
        ("content-type", "application/json"),
    )
    at = int(stamp.timestamp() * 1000)
    added = dict(ours.signed("POST", path, "", headers, body, at=at))
    assert added["authorization"] == theirs.headers["Authorization"]


def test_the_next_day_has_a_key_of_its_own() -> None:
    day = 24 * 3600 * 1000
    one = signer()
    for at in (AT, AT + day, AT):
        assert one.signed("GET", "/", "", (HOST,), b"", at=at) == signer().signed(
            "GET", "/", "", (HOST,), b"", at=at
        )


def test_the_keys_are_not_shown() -> None:
    shown = repr(Credentials(KEY, SECRET, SESSION))
    assert SECRET not in shown
    assert SESSION not in shown
