"""Secrets that are kept elsewhere: a setting names them, and they are fetched at the start.

    vault:secret/data/station#api_key      HashiCorp Vault: the path of its HTTP API, and a field
    aws:station/production#api_key         AWS Secrets Manager: a name or ARN, and a field of JSON

Vault is asked at VAULT_ADDR with VAULT_TOKEN (or VAULT_TOKEN_FILE); AWS as boto3 finds its way,
from the environment or the machine's role.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

TIMEOUT_S = 10.0
MAX_ANSWER = 1024 * 1024
_FORM = re.compile(r"(vault|aws):([^#\s]{1,2048})(?:#([^#\s]{1,256}))?")


class SecretUnavailable(ValueError):
    """A secret cannot be fetched. The message never holds one."""


def is_reference(text: str) -> bool:
    """Whether a secret setting's text names a secret instead of being one."""
    return text.startswith(("vault:", "aws:"))


def fetch(text: str, environ: Mapping[str, str]) -> str:
    """The secret that `text` names. Raises `SecretUnavailable`."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise SecretUnavailable("must have the form vault:PATH#FIELD or aws:NAME#FIELD")
    kind, name, field = match.groups()
    found = _vault(name, environ) if kind == "vault" else _aws(name, environ)
    return _field(found, field)


def _field(found: Any, field: str | None) -> str:
    if field is None:
        if isinstance(found, dict) and len(found) == 1:
            found = next(iter(found.values()))
    elif isinstance(found, dict) and field in found:
        found = found[field]
    else:
        raise SecretUnavailable(f"names a secret that has no field {field!r}")
    if not isinstance(found, str) or not found:
        raise SecretUnavailable("names a secret that is not one text; add #FIELD")
    return found


# --- Vault ------------------------------------------------------------------------------------


def _vault(path: str, environ: Mapping[str, str]) -> Any:
    address = environ.get("VAULT_ADDR", "").rstrip("/")
    if urlsplit(address).scheme not in {"http", "https"}:
        raise SecretUnavailable("needs VAULT_ADDR, where Vault is")
    headers = {"X-Vault-Token": _vault_token(environ), "X-Vault-Request": "true"}
    if namespace := environ.get("VAULT_NAMESPACE"):
        headers["X-Vault-Namespace"] = namespace
    # Only http and https get here.
    request = urllib.request.Request(f"{address}/v1/{quote(path)}", headers=headers)  # noqa: S310
    try:
        opener = urllib.request.build_opener(_NoRedirect())
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read(MAX_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        raise SecretUnavailable(f"is refused by Vault with {error.code}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or type(error).__name__
        raise SecretUnavailable(f"cannot be fetched from Vault: {why}") from None
    return _of_vault(body)


def _of_vault(body: bytes) -> Any:
    try:
        data = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError):
        raise SecretUnavailable(
            "cannot be fetched from Vault: its answer is not understood"
        ) from None
    # Version 2 of the store puts the secret one level deeper, beside its metadata.
    if isinstance(data, dict) and isinstance(data.get("data"), dict) and "metadata" in data:
        return data["data"]
    return data


def _vault_token(environ: Mapping[str, str]) -> str:
    if token := environ.get("VAULT_TOKEN", "").strip():
        return token
    file = environ.get("VAULT_TOKEN_FILE", "").strip()
    try:
        token = Path(file).expanduser().read_text(encoding="utf-8").strip() if file else ""
    except OSError as error:
        raise SecretUnavailable(f"needs VAULT_TOKEN_FILE, which {error.strerror}") from None
    if not token:
        raise SecretUnavailable("needs VAULT_TOKEN or VAULT_TOKEN_FILE")
    return token


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token must go nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


# --- AWS --------------------------------------------------------------------------------------


def _aws(name: str, environ: Mapping[str, str]) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise SecretUnavailable("needs boto3: pip install 'stationmaster[aws]'") from None
    config = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"max_attempts": 2})
    try:
        client = boto3.client(
            "secretsmanager",
            region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
            aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=environ.get("AWS_SESSION_TOKEN"),
            config=config,
        )
        text = client.get_secret_value(SecretId=name).get("SecretString")
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise SecretUnavailable(f"is refused by AWS Secrets Manager with {code}") from None
    except (BotoCoreError, ValueError) as error:
        raise SecretUnavailable(
            f"cannot be fetched from AWS Secrets Manager: {type(error).__name__}"
        ) from None
    if not isinstance(text, str):
        raise SecretUnavailable("names a secret that is not text")
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text
