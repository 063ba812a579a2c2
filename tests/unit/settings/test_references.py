"""Secrets that are kept elsewhere, over the wire that these services speak."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stationmaster.settings import Settings, SettingsError

SECRET = "Zt5gkq8WmR2vXcYp0aHd7LsNfJ3uEiB9"
TOKEN = "hvs.a-token-of-vault"


class Wire:
    """An HTTP server that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.answer = 200, b"{}"
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        wire = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("content-length", 0))
                told = {name.lower(): value for name, value in self.headers.items()}
                wire.asked.append((self.command, self.path, told, self.rfile.read(length)))
                self.send_response(wire.status)
                for name, value in wire.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(wire.answer)))
                self.end_headers()
                self.wfile.write(wire.answer)

            def log_message(self, *_: Any) -> None:
                pass

        Handler.do_GET = Handler.do_POST = Handler._answer  # type: ignore[attr-defined]
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def says(self, value: Any) -> None:
        self.answer = json.dumps(value).encode()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def load(tmp_path: Path, reference: str, **env: str) -> str:
    settings = Settings.load({"SECRET_KEY": reference, **env}, cwd=tmp_path)
    assert settings.secret_key is not None
    return settings.secret_key.get_secret_value()


def problem(tmp_path: Path, reference: str, **env: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, reference, **env)
    (found,) = caught.value.problems
    assert found.setting == "SECRET_KEY"
    assert TOKEN not in str(found)
    return found.message


# --- Vault ------------------------------------------------------------------------------------


def vault(wire: Wire) -> dict[str, str]:
    return {"VAULT_ADDR": wire.url, "VAULT_TOKEN": TOKEN}


def test_vault_version_2(tmp_path: Path, wire: Wire) -> None:
    data = {"data": {"key": SECRET, "other": "x"}, "metadata": {"version": 3}}
    wire.says({"request_id": "1", "lease_id": "", "data": data})
    assert load(tmp_path, "vault:secret/data/station#key", **vault(wire)) == SECRET
    ((method, path, headers, _),) = wire.asked
    assert (method, path) == ("GET", "/v1/secret/data/station")
    assert headers["x-vault-token"] == TOKEN
    assert headers["x-vault-request"] == "true"


def test_vault_version_1_namespaces_and_token_files(tmp_path: Path, wire: Wire) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    wire.says({"data": {"key": SECRET}})
    env = {
        "VAULT_ADDR": wire.url + "/",
        "VAULT_TOKEN_FILE": str(tmp_path / "token"),
        "VAULT_NAMESPACE": "team",
    }
    assert load(tmp_path, "vault:kv/station", **env) == SECRET
    assert wire.asked[0][2]["x-vault-namespace"] == "team"
    assert wire.asked[0][2]["x-vault-token"] == TOKEN


def test_a_reference_may_stand_in_a_file(tmp_path: Path, wire: Wire) -> None:
    wire.says({"data": {"key": SECRET}})
    (tmp_path / "config.yaml").write_text("secret_key: vault:kv/station#key\n")
    settings = Settings.load(vault(wire), cwd=tmp_path)
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET
    assert SECRET in settings.secrets()


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_vault_refuses(tmp_path: Path, wire: Wire, status: int) -> None:
    wire.status = status
    assert str(status) in problem(tmp_path, "vault:kv/station#key", **vault(wire))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"data": null}',
        b'{"data": {"other": "x"}}',
        b'{"data": {"key": 5}}',
    ],
)
def test_vault_says_something_else(tmp_path: Path, wire: Wire, answer: bytes) -> None:
    wire.answer = answer
    assert problem(tmp_path, "vault:kv/station#key", **vault(wire))


def test_vaults_token_is_sent_nowhere_else(tmp_path: Path, wire: Wire) -> None:
    wire.status, wire.headers = 302, {"location": f"{wire.url}/v1/elsewhere"}
    assert "302" in problem(tmp_path, "vault:kv/station#key", **vault(wire))
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({}, "VAULT_ADDR"),
        ({"VAULT_ADDR": "file:///etc/passwd", "VAULT_TOKEN": "x"}, "VAULT_ADDR"),
        ({"VAULT_ADDR": "http://127.0.0.1:9"}, "VAULT_TOKEN"),
        ({"VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN_FILE": "/nowhere"}, "VAULT_TOKEN_FILE"),
        ({"VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": "x"}, "cannot be fetched"),
    ],
)
def test_vault_cannot_be_asked(tmp_path: Path, env: dict[str, str], word: str) -> None:
    assert word in problem(tmp_path, "vault:kv/station#key", **env)


@pytest.mark.parametrize("text", ["vault:", "vault:a#b#c", "aws:", "vault:a b"])
def test_a_reference_of_no_form(tmp_path: Path, text: str) -> None:
    assert "form" in problem(tmp_path, text)


def test_what_is_fetched_must_have_the_settings_form(tmp_path: Path, wire: Wire) -> None:
    wire.says({"data": {"key": "short"}})
    found = problem(tmp_path, "vault:kv/station#key", **vault(wire))
    assert "16 to 512" in found
    assert "short" not in found


# --- AWS --------------------------------------------------------------------------------------


@pytest.fixture
def aws(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": wire.url,
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "a-secret-access-key",
    }


def test_aws_json_and_plain_text(tmp_path: Path, wire: Wire, aws: dict[str, str]) -> None:
    wire.says({"Name": "station/prod", "SecretString": json.dumps({"key": SECRET})})
    assert load(tmp_path, "aws:station/prod#key", **aws) == SECRET
    ((method, path, headers, body),) = wire.asked
    assert (method, path) == ("POST", "/")
    assert headers["x-amz-target"] == "secretsmanager.GetSecretValue"
    assert headers["content-type"] == "application/x-amz-json-1.1"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-central-1/secretsmanager/aws4_request" in headers["authorization"]
    assert json.loads(body) == {"SecretId": "station/prod"}
    wire.says({"SecretString": SECRET})
    assert load(tmp_path, "aws:station/prod", **aws) == SECRET
    arn = "aws:arn:aws:secretsmanager:eu-central-1:123456789012:secret:station-AbCdEf"
    assert load(tmp_path, arn, **aws) == SECRET
    assert json.loads(wire.asked[-1][3])["SecretId"].startswith("arn:aws:secretsmanager:")


def test_aws_refuses(tmp_path: Path, wire: Wire, aws: dict[str, str]) -> None:
    wire.status = 400
    wire.says({"__type": "ResourceNotFoundException", "Message": "no such secret"})
    assert "ResourceNotFoundException" in problem(tmp_path, "aws:station/prod", **aws)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ({"SecretBinary": "eA=="}, "aws:station"),
        ({"SecretString": '{"a": "1", "b": "2"}'}, "aws:station"),
        ({"SecretString": '{"a": "1"}'}, "aws:station#key"),
        ({"SecretString": SECRET}, "aws:station#key"),
    ],
)
def test_aws_has_something_else(
    tmp_path: Path, wire: Wire, aws: dict[str, str], answer: dict[str, str], reference: str
) -> None:
    wire.says(answer)
    assert problem(tmp_path, reference, **aws)
