"""Every route, asked by everybody: who is let in, and who is told what.

A route is a row below: the scope that it needs, and a body that is right, so that a refusal is for
want of a right and not for a wrong field. What a caller must be answered follows from the row and
from the caller's scopes. A new route without a row fails the first test.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from stationmaster.access.roles import ORGANIZATION_SCOPES
from stationmaster.access.secret import KEY_PREFIX, generate
from stationmaster.access.tables import api_keys
from stationmaster.http.routes.app import stationmaster_api
from stationmaster.http.routes.managed.app import managed_api
from stationmaster.http.routes.openai.app import openai_api
from stationmaster.http.wire import operations
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import open_database
from tests.http.conftest import House, Open
from tests.http.test_jobs import parked

OPEN = ""  # no credential is asked for
ANY = "any"  # a credential, whatever its scopes
ULID = "01jd3k00000000000000000000"
TEXT = [{"type": "text", "text": "x"}]


@dataclass(frozen=True)
class Row:
    """What a route needs: a scope, or several of them, and a body.

    With `looks_first` it says that something is not there to who may see it, before it asks
    whether it may be changed.
    """

    scopes: str | tuple[str, ...]
    body: Any = None
    query: str = ""
    upload: bool = False
    looks_first: bool = False

    @property
    def refusals(self) -> frozenset[int]:
        return frozenset({403, 404} if self.looks_first else {403})

    @property
    def needed(self) -> tuple[str, ...]:
        return (self.scopes,) if isinstance(self.scopes, str) else self.scopes


CALL = {"model": "haiku", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
ORGANIZATION, MEMBERS, KEYS = "admin:organization", "admin:members", "admin:keys"
ROLE = {"workspace_role": "workspace_user"}
DECIDE = (ORGANIZATION, MEMBERS, "read:budgets", "admin:budgets")

ROWS: Mapping[str, Row] = {
    # what everybody may see
    "GET /": Row(OPEN),
    "GET /health": Row(OPEN),
    "GET /ready": Row(OPEN),
    "GET /live": Row(OPEN),
    "GET /metrics": Row(OPEN),
    "GET /db-check": Row(OPEN),
    "GET /redis-check": Row(OPEN),
    "GET /broker-check": Row(OPEN),
    "GET /openapi.json": Row(OPEN),
    "GET /docs": Row(OPEN),
    "GET /docs/style.css": Row(OPEN),
    "GET /redoc": Row(OPEN),
    "GET /.well-known/jwks.json": Row(OPEN),
    "POST /v1/auth/login": Row(OPEN, {"email": "a@example.org", "password": "wrong-password"}),
    "POST /v1/auth/refresh": Row(OPEN, {"refresh_token": "wrong"}),
    "GET /v1/auth/oidc/login": Row(OPEN),
    "GET /v1/auth/oidc/callback": Row(OPEN),
    "POST /api/invites/accept": Row(OPEN, {"token": "wrong", "name": "A"}),
    # about oneself
    "GET /v1/auth/me": Row(ANY),
    "POST /v1/auth/logout": Row(ANY),
    "POST /v1/auth/password": Row(
        ANY, {"current_password": "wrong-password", "new_password": "another-password"}
    ),
    "POST /v1/stream/tickets": Row(ANY, {}),
    "GET /v1/capabilities": Row(ANY),
    "GET /v1/organizations/me": Row(ANY),
    "GET /api/v1/clients/me": Row(ANY),
    "GET /api/v1/auth/validate-token": Row(ANY),
    # models and tasks
    "POST /v1/messages": Row("write:messages", CALL),
    "POST /v1/messages/count_tokens": Row("write:messages", CALL),
    "POST /v1/chat/completions": Row("write:messages", CALL),
    "POST /v1/responses": Row("write:messages", {"model": "haiku", "input": "x"}),
    "POST /v1/responses/input_tokens": Row("write:messages", {"model": "haiku", "input": "x"}),
    "GET /v1/responses/{response_id}": Row("write:messages"),
    "DELETE /v1/responses/{response_id}": Row("write:messages"),
    "GET /v1/responses/{response_id}/input_items": Row("write:messages"),
    "POST /v1/embeddings": Row("write:messages", {"model": "haiku", "input": "x"}),
    "GET /v1/models": Row(ANY),
    "POST /v1/process": Row(
        "write:messages", {"provider": "offline", "model_name": "haiku", "user_message": "x"}
    ),
    "GET /v1/providers": Row(ANY),
    "GET /v1/providers/{provider}/models": Row(ANY),
    "POST /v1/route": Row("write:messages", {"prompt": "x"}),
    "GET /api/cache/stats": Row("read:usage"),
    "DELETE /api/cache": Row("write:messages"),
    "GET /v1/models/{model}": Row(ANY),
    "GET /v1/calls": Row("admin:calls"),
    "DELETE /v1/calls": Row("admin:calls"),
    "GET /v1/calls/{call_id}": Row("admin:calls"),
    "DELETE /v1/calls/{call_id}": Row("admin:calls"),
    "GET /api/admin/projects/{project_id}/call-policy": Row(ORGANIZATION),
    "PUT /api/admin/projects/{project_id}/call-policy": Row(ORGANIZATION, {"enabled": False}),
    "POST /v1/batch": Row("write:messages", {"prompts": [{"prompt": "x"}]}),
    "POST /v1/messages/batches": Row(
        "write:messages", {"requests": [{"custom_id": "a", "params": CALL}]}
    ),
    "POST /v1/batches": Row(
        ("write:messages", "write:files", "read:files"),
        {
            "input_file_id": f"file_{ULID}",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
    ),
    "GET /v1/batches": Row("write:messages"),
    "GET /v1/batches/{batch_id}": Row("write:messages"),
    "POST /v1/batches/{batch_id}/cancel": Row("write:messages"),
    "GET /v1/batches/{batch_id}/submissions": Row("write:messages"),
    "GET /v1/messages/batches": Row("write:messages"),
    "GET /v1/messages/batches/{batch_id}": Row("write:messages"),
    "DELETE /v1/messages/batches/{batch_id}": Row("write:messages"),
    "POST /v1/messages/batches/{batch_id}/cancel": Row("write:messages"),
    "GET /v1/messages/batches/{batch_id}/results": Row("write:messages"),
    "POST /v1/task": Row("write:tasks", {"description": "x"}),
    "POST /v1/tasks": Row("write:tasks", {"description": "x"}),
    "GET /v1/tasks": Row("read:tasks"),
    "GET /v1/task/{task_id}": Row("read:tasks"),
    "GET /v1/tasks/{task_id}": Row("read:tasks"),
    "POST /v1/tasks/{task_id}/cancel": Row("write:tasks"),
    "GET /v1/tasks/{task_id}/log": Row("read:tasks"),
    "GET /v1/tasks/{task_id}/events": Row("read:tasks"),
    "GET /v1/tasks/{task_id}/artifacts": Row("read:tasks"),
    "GET /v1/tasks/{task_id}/artifacts/{path}": Row("read:tasks"),
    "GET /v1/tasks/{task_id}/archive": Row("read:tasks"),
    "GET /v1/tasks/{task_id}/diff": Row("read:tasks"),
    "GET /v1/approvals": Row("read:approvals"),
    "GET /v1/approvals/{approval_id}": Row("read:approvals"),
    "POST /v1/approvals/{approval_id}": Row("write:approvals", {"decision": "allow"}),
    # money
    "GET /v1/usage": Row("read:usage"),
    "GET /v1/usage/export": Row("read:usage"),
    "GET /v1/budgets": Row("read:budgets"),
    "GET /v1/budget-alerts": Row("read:budgets"),
    "GET /v1/budgets/{budget_id}": Row("read:budgets"),
    "POST /v1/budgets": Row(
        "admin:budgets", {"subject": {"type": "key", "id": f"key_{ULID}"}, "limit_usd": "1"}
    ),
    "PATCH /v1/budgets/{budget_id}": Row("admin:budgets", {"limit_usd": "2"}, looks_first=True),
    "DELETE /v1/budgets/{budget_id}": Row("admin:budgets"),
    # keys
    "GET /api/admin/keys": Row("list:keys"),
    "GET /api/admin/keys/{key_id}": Row("list:keys"),
    "POST /api/admin/keys": Row(KEYS, {"name": "made", "permissions": ["read:tasks"]}),
    "PATCH /api/admin/keys/{key_id}": Row(KEYS, {"name": "other"}),
    "DELETE /api/admin/keys/{key_id}": Row(KEYS),
    "POST /api/admin/keys/{key_id}/rotate": Row(KEYS, {}),
    "POST /api/admin/keys/{key_id}/collect": Row(KEYS),
    # who there is
    "POST /api/admin/organizations": Row("*", {"name": "Acme"}),
    "PATCH /api/admin/organization": Row(ORGANIZATION, {"description": "ours"}),
    "POST /api/admin/users": Row(MEMBERS, {"email": "b@example.org", "name": "B"}),
    "PATCH /api/admin/users/{user_id}": Row(MEMBERS, {"name": "C"}),
    "POST /api/admin/invites/{invite_id}/token": Row(MEMBERS),
    "POST /api/v1/clients": Row("*", {"name": "Acme"}),
    "PUT /api/v1/clients/me": Row(ORGANIZATION, {"description": "ours"}),
    "DELETE /api/v1/clients/me": Row("own:organization"),
    "POST /api/v1/clients/regenerate-key": Row("*"),
    "POST /api/v1/auth/user-login": Row((MEMBERS, KEYS), {"user_id": "u1"}),
    "POST /api/v1/auth/user-logout": Row(MEMBERS, {"user_id": "u2"}),
    "PUT /v1/auth/users/{user_id}/password": Row(MEMBERS, {"password": "a-long-password-1"}),
    "GET /v1/audit": Row("admin:audit"),
    "GET /v1/audit/export": Row("admin:audit"),
    # agents and sessions
    "POST /v1/agents": Row("write:agents", {"name": "a", "model": "haiku"}),
    "GET /v1/agents": Row("read:agents"),
    "GET /v1/agents/{agent_id}": Row("read:agents"),
    "POST /v1/agents/{agent_id}": Row("write:agents", {"version": 1, "name": "b"}),
    "GET /v1/agents/{agent_id}/versions": Row("read:agents"),
    "POST /v1/agents/{agent_id}/archive": Row("write:agents"),
    "POST /v1/environments": Row("write:environments", {"name": "e"}),
    "GET /v1/environments": Row("read:environments"),
    "GET /v1/environments/{environment_id}": Row("read:environments"),
    "POST /v1/environments/{environment_id}": Row("write:environments", {"name": "f"}),
    "DELETE /v1/environments/{environment_id}": Row("write:environments"),
    "POST /v1/environments/{environment_id}/archive": Row("write:environments"),
    "POST /v1/environments/{environment_id}/keys": Row(
        (KEYS, "read:environments", "work:environments"), {}
    ),
    "GET /v1/environments/{environment_id}/keys": Row(("read:environments", "list:keys")),
    "DELETE /v1/environments/{environment_id}/keys/{key_id}": Row((KEYS, "read:environments")),
    "GET /v1/environments/{environment_id}/work": Row("read:environments"),
    "GET /v1/environments/{environment_id}/work/poll": Row("work:environments"),
    "GET /v1/environments/{environment_id}/work/stats": Row("read:environments"),
    "GET /v1/environments/{environment_id}/work/{work_id}": Row("read:environments"),
    "POST /v1/environments/{environment_id}/work/{work_id}": Row(
        "write:environments", {"metadata": {}}
    ),
    "POST /v1/environments/{environment_id}/work/{work_id}/ack": Row("work:environments"),
    "POST /v1/environments/{environment_id}/work/{work_id}/heartbeat": Row("work:environments"),
    "POST /v1/environments/{environment_id}/work/{work_id}/stop": Row("write:environments", {}),
    "POST /v1/sessions": Row(
        "write:sessions", {"agent": f"agent_{ULID}", "environment_id": f"env_{ULID}"}
    ),
    "GET /v1/sessions": Row("read:sessions"),
    "GET /v1/sessions/{session_id}": Row("read:sessions"),
    "POST /v1/sessions/{session_id}": Row("write:sessions", {"title": "t"}),
    "DELETE /v1/sessions/{session_id}": Row("write:sessions"),
    "POST /v1/sessions/{session_id}/archive": Row("write:sessions"),
    "POST /v1/sessions/{session_id}/fork": Row("write:sessions", {}),
    "POST /v1/sessions/{session_id}/events": Row(
        "write:sessions", {"events": [{"type": "user.message", "content": TEXT}]}
    ),
    "GET /v1/sessions/{session_id}/events": Row("read:sessions"),
    "GET /v1/sessions/{session_id}/events/stream": Row("read:sessions"),
    "GET /v1/sessions/{session_id}/turns": Row("read:sessions"),
    "GET /v1/sessions/{session_id}/threads": Row("read:sessions"),
    "GET /v1/sessions/{session_id}/threads/{thread_id}": Row("read:sessions"),
    "POST /v1/sessions/{session_id}/threads/{thread_id}/archive": Row(
        "write:sessions", looks_first=True
    ),
    "GET /v1/sessions/{session_id}/threads/{thread_id}/events": Row("read:sessions"),
    "GET /v1/sessions/{session_id}/threads/{thread_id}/stream": Row("read:sessions"),
    "POST /v1/sessions/{session_id}/resources": Row(
        "write:sessions", {"type": "file", "file_id": f"file_{ULID}"}
    ),
    "GET /v1/sessions/{session_id}/resources": Row("read:sessions"),
    "GET /v1/sessions/{session_id}/resources/{resource_id}": Row("read:sessions"),
    "POST /v1/sessions/{session_id}/resources/{resource_id}": Row(
        "write:sessions", {"authorization_token": "x"}
    ),
    "DELETE /v1/sessions/{session_id}/resources/{resource_id}": Row("write:sessions"),
    "POST /api/execute": Row(
        "write:sessions", {"prompt": "x", "resumeSessionId": f"sesn_{ULID}"}, looks_first=True
    ),
    "POST /api/stream/{session_id}": Row("write:sessions", {"prompt": "x"}, looks_first=True),
    "GET /api/stream/{session_id}": Row("read:sessions"),
    "POST /api/sessions": Row("write:sessions", {}),
    "GET /api/sessions": Row("read:sessions"),
    "GET /api/sessions/{session_id}": Row("read:sessions"),
    "DELETE /api/sessions/{session_id}": Row("write:sessions"),
    "GET /status": Row("read:tasks"),
    "GET /v1/queue": Row("admin:server"),
    "GET /v1/jobs": Row("admin:jobs"),
    "GET /v1/jobs/{job_id}": Row("admin:jobs"),
    "POST /v1/jobs/{job_id}/replay": Row("admin:jobs"),
    "DELETE /v1/jobs/{job_id}": Row("admin:jobs"),
    "POST /v1/files": Row("write:files", upload=True),
    "GET /v1/files": Row("read:files"),
    "GET /v1/files/{file_id}": Row("read:files"),
    "DELETE /v1/files/{file_id}": Row("write:files"),
    "GET /v1/files/{file_id}/content": Row("read:files"),
    # the Admin API
    "GET /v1/organizations/users": Row(MEMBERS),
    "GET /v1/organizations/users/{user_id}": Row(MEMBERS),
    "POST /v1/organizations/users/{user_id}": Row(MEMBERS, {"role": "user"}),
    "DELETE /v1/organizations/users/{user_id}": Row(MEMBERS),
    "POST /v1/organizations/users/{user_id}/sign_out": Row(MEMBERS),
    "POST /v1/organizations/invites": Row(MEMBERS, {"email": "i@example.org", "role": "user"}),
    "GET /v1/organizations/invites": Row(MEMBERS),
    "GET /v1/organizations/invites/{invite_id}": Row(MEMBERS),
    "DELETE /v1/organizations/invites/{invite_id}": Row(MEMBERS),
    "POST /v1/organizations/workspaces": Row(ORGANIZATION, {"name": "w"}),
    "GET /v1/organizations/workspaces": Row(ORGANIZATION),
    "GET /v1/organizations/workspaces/{workspace_id}": Row(ORGANIZATION),
    "POST /v1/organizations/workspaces/{workspace_id}": Row(ORGANIZATION, {"name": "v"}),
    "POST /v1/organizations/workspaces/{workspace_id}/archive": Row(ORGANIZATION),
    "POST /v1/organizations/workspaces/{workspace_id}/members": Row(
        MEMBERS, {"user_id": f"user_{ULID}", **ROLE}
    ),
    "GET /v1/organizations/workspaces/{workspace_id}/members": Row(MEMBERS),
    "GET /v1/organizations/workspaces/{workspace_id}/members/{user_id}": Row(MEMBERS),
    "POST /v1/organizations/workspaces/{workspace_id}/members/{user_id}": Row(MEMBERS, ROLE),
    "DELETE /v1/organizations/workspaces/{workspace_id}/members/{user_id}": Row(MEMBERS),
    "POST /v1/organizations/workspaces/{workspace_id}/service_accounts": Row(
        MEMBERS, {"service_account_id": f"svac_{ULID}", **ROLE}
    ),
    "GET /v1/organizations/workspaces/{workspace_id}/service_accounts": Row(MEMBERS),
    "GET /v1/organizations/workspaces/{workspace_id}/service_accounts/{service_account_id}": Row(
        MEMBERS
    ),
    "POST /v1/organizations/workspaces/{workspace_id}/service_accounts/{service_account_id}": Row(
        MEMBERS, ROLE
    ),
    "DELETE /v1/organizations/workspaces/{workspace_id}/service_accounts/{service_account_id}": (
        Row(MEMBERS)
    ),
    "POST /v1/organizations/service_accounts": Row(ORGANIZATION, {"name": "ci"}),
    "GET /v1/organizations/service_accounts": Row(ORGANIZATION),
    "GET /v1/organizations/service_accounts/{service_account_id}": Row(ORGANIZATION),
    "POST /v1/organizations/service_accounts/{service_account_id}": Row(
        ORGANIZATION, {"description": "d"}
    ),
    "POST /v1/organizations/service_accounts/{service_account_id}/archive": Row(ORGANIZATION),
    "GET /v1/organizations/service_accounts/{service_account_id}/workspaces": Row(MEMBERS),
    "POST /v1/organizations/service_accounts/{service_account_id}/workspaces": Row(
        MEMBERS, {"workspace_id": f"proj_{ULID}", **ROLE}
    ),
    "DELETE /v1/organizations/service_accounts/{service_account_id}/workspaces/{workspace_id}": (
        Row(MEMBERS)
    ),
    "GET /v1/organizations/api_keys": Row("list:keys"),
    "GET /v1/organizations/api_keys/{api_key_id}": Row("list:keys"),
    "POST /v1/organizations/api_keys/{api_key_id}": Row(KEYS, {"name": "renamed"}),
    "GET /v1/organizations/rate_limits": Row(ORGANIZATION),
    "GET /v1/organizations/analytics/usage_report": Row(
        ("read:usage", ORGANIZATION), query="?starting_at=2026-01-01T00:00:00Z"
    ),
    "GET /v1/organizations/analytics/cost_report": Row(
        ("read:usage", ORGANIZATION), query="?starting_at=2026-01-01T00:00:00Z"
    ),
    "GET /v1/organizations/spend_limits": Row((ORGANIZATION, "read:budgets")),
    "POST /v1/organizations/spend_limits": Row(
        (ORGANIZATION, "read:budgets", "admin:budgets"),
        {"amount": "5", "scope": {"type": "organization"}},
    ),
    "GET /v1/organizations/spend_limits/effective": Row((ORGANIZATION, MEMBERS, "read:budgets")),
    "GET /v1/organizations/spend_limits/{spend_limit_id}": Row((ORGANIZATION, "read:budgets")),
    "DELETE /v1/organizations/spend_limits/{spend_limit_id}": Row(
        (ORGANIZATION, "read:budgets", "admin:budgets"), looks_first=True
    ),
    "POST /v1/organizations/spend_limit_increase_requests": Row(ANY, {}),
    "GET /v1/organizations/spend_limit_increase_requests": Row(DECIDE[:3]),
    "GET /v1/organizations/spend_limit_increase_requests/{spend_limit_increase_request_id}": Row(
        DECIDE[:3]
    ),
    "POST /v1/organizations/spend_limit_increase_requests/{spend_limit_increase_request_id}"
    "/approve": Row(DECIDE, {"amount": "5"}, looks_first=True),
    "POST /v1/organizations/spend_limit_increase_requests/{spend_limit_increase_request_id}"
    "/deny": Row(DECIDE, {}, looks_first=True),
    "GET /v1/organizations/workspaces/{workspace_id}/rate_limits": Row(ORGANIZATION),
    "POST /v1/organizations/workspaces/{workspace_id}/rate_limits/{rate_limit_id}": Row(
        ORGANIZATION, {"limits": []}
    ),
}

NEVER = {
    "provider": "nobody",
    "task_id": f"run_{ULID}",
    "path": "a.txt",
    "approval_id": f"appr_{ULID}",
    "budget_id": f"bud_{ULID}",
    "key_id": f"key_{ULID}",
    "api_key_id": f"key_{ULID}",
    "user_id": f"user_{ULID}",
    "invite_id": f"invite_{ULID}",
    "agent_id": f"agent_{ULID}",
    "environment_id": f"env_{ULID}",
    "work_id": f"work_{ULID}",
    "session_id": f"sesn_{ULID}",
    "thread_id": f"sthr_{ULID}",
    "resource_id": f"sesrsc_{ULID}",
    "file_id": f"file_{ULID}",
    "batch_id": f"msgbatch_{ULID}",
    "call_id": f"call_{ULID}",
    "job_id": f"job_{ULID}",
    "project_id": f"proj_{ULID}",
    "workspace_id": f"proj_{ULID}",
    "model": "haiku",
    "response_id": "resp_never",
    "service_account_id": f"svac_{ULID}",
    "rate_limit_id": f"rlmt_{ULID}",
    "spend_limit_id": f"bud_{ULID}",
    "spend_limit_increase_request_id": f"slir_{ULID}",
}
"""Ids that nothing has."""

REFUSED = frozenset({401, 403})


def routes() -> set[str]:
    """Every route of the server, from its routers."""
    found = {  # past the framework
        f"{method.upper()} {path}"
        for path, methods in operations.paths([]).items()
        for method in methods
    }
    for api in (stationmaster_api(), openai_api(), managed_api()):
        for route in api.routes:
            methods = getattr(route, "methods", None) or {"GET"}
            path = str(getattr(route, "path", "")).replace(":path}", "}")
            found |= {f"{method} {path}" for method in methods - {"HEAD"}}
    return found


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert routes() == set(ROWS)


@dataclass
class Visitor:
    """Asks every route with one credential, and keeps what was wrong."""

    house: House
    key: str | None
    ids: Mapping[str, str] = field(default_factory=lambda: NEVER)
    wrong: list[str] = field(default_factory=list)
    more: Mapping[str, str] = field(default_factory=dict)
    """Headers."""

    async def ask(self, name: str) -> httpx.Response:
        row, (method, _, path) = ROWS[name], name.partition(" ")
        request: dict[str, Any] = {"json": row.body} if row.body is not None else {}
        if row.upload:
            request = {"files": {"file": ("a.txt", b"x", "text/plain")}}
        headers = {**self.house.as_key(self.key), "anthropic-version": "2023-06-01", **self.more}
        return await self.house.client.request(
            method, path.format(**self.ids) + row.query, headers=headers, **request
        )

    async def expect(self, name: str, answer: httpx.Response, ok: bool, wanted: str) -> None:
        if not ok:
            text = answer.text[:200]
            self.wrong.append(f"{name}: {answer.status_code}, not {wanted}: {text}")


@pytest.fixture
async def unlimited(open_house: Open) -> AsyncIterator[House]:
    """A server that does not count: the matrix asks more often than anybody may."""
    async with open_house(RATE_LIMIT_ENABLED="false") as opened:
        yield opened


async def new_key(house: House, scopes: frozenset[str] | set[str]) -> Any:
    body = {"name": "made", "permissions": sorted(scopes)}
    answer = await house.client.post("/api/admin/keys", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


# --- without a good credential ----------------------------------------------------------------


async def nobodies(house: House) -> dict[str, str | None]:
    """Credentials that are none, or none any more."""
    everything = ORGANIZATION_SCOPES["owner"]
    expired, revoked, disabled = [await new_key(house, everything) for _ in range(3)]
    database = open_database(house.settings.database_url.get_secret_value())
    await database.write(
        lambda tx: tx.execute(
            update(api_keys).where(api_keys.c.id == expired["id"]).values(expires_at=1)
        )
    )
    await database.close()
    await house.client.delete(f"/api/admin/keys/{revoked['id']}")
    await house.client.patch(f"/api/admin/keys/{disabled['id']}", json={"enabled": False})
    return {
        "no key": None,
        "a wrong key": "wrong-key-0123456789",
        "a key that never was": generate(KEY_PREFIX),
        "an expired key": expired["key"],
        "a revoked key": revoked["key"],
        "a disabled key": disabled["key"],
    }


async def test_without_a_good_credential_there_is_nothing(unlimited: House) -> None:
    for who, key in (await nobodies(unlimited)).items():
        visitor = Visitor(unlimited, key)
        for name, row in ROWS.items():
            answer = await visitor.ask(name)
            if row.scopes != OPEN:
                await visitor.expect(name, answer, answer.status_code == 401, "401")
        assert not visitor.wrong, f"with {who}: " + "\n".join(visitor.wrong)


async def test_what_is_open_is_the_same_for_everybody(unlimited: House) -> None:
    for name in (name for name, row in ROWS.items() if row.scopes == OPEN):
        plain = await Visitor(unlimited, None).ask(name)
        bad = await Visitor(unlimited, "wrong-key-0123456789").ask(name)
        assert plain.status_code == bad.status_code, name
        assert plain.status_code != 403, name


# --- with too few rights, and with enough -----------------------------------------------------

ROLES = {
    "viewer": ORGANIZATION_SCOPES["viewer"],
    "member": ORGANIZATION_SCOPES["member"],
    "admin": ORGANIZATION_SCOPES["admin"],
    "nothing of use": frozenset({"invite:rooms"}),
}


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_is_let_in_where_its_scopes_say(unlimited: House, role: str) -> None:
    scopes = ROLES[role]
    principal = Principal("key", "k", Owner("o", "p"), "k", scopes)
    visitor = Visitor(unlimited, (await new_key(unlimited, scopes))["key"])
    for name, row in ROWS.items():
        if row.scopes == OPEN:
            continue
        answer = await visitor.ask(name)
        status = answer.status_code
        if row.scopes == ANY:
            await visitor.expect(name, answer, status != 401, "anything but 401")
        elif all(principal.may(scope) for scope in row.needed):
            ok = status not in REFUSED and status < 500
            await visitor.expect(name, answer, ok, "let in")
        else:
            await visitor.expect(name, answer, status in row.refusals, "403")
    assert not visitor.wrong, "\n".join(visitor.wrong)


@pytest.mark.parametrize("role", ["member", "admin"])
async def test_each_single_scope_opens_its_routes_and_no_others(
    unlimited: House, role: str
) -> None:
    """Of the role's rights, one at a time is missing: then its routes are closed."""
    principal = Principal("key", "k", Owner("o", "p"), "k", ROLES[role])
    used = sorted({s for row in ROWS.values() for s in row.needed if ":" in s})
    for missing in (scope for scope in used if principal.may(scope)):
        rest = frozenset(scope for scope in used if scope != missing and principal.may(scope))
        if missing == "list:keys":
            rest -= {KEYS}  # who makes keys sees them
        visitor = Visitor(unlimited, (await new_key(unlimited, rest))["key"])
        for name, row in ROWS.items():
            if missing in row.needed:
                answer = await visitor.ask(name)
                await visitor.expect(name, answer, answer.status_code in row.refusals, "403")
        assert not visitor.wrong, f"without {missing}: " + "\n".join(visitor.wrong)


# --- another tenant ---------------------------------------------------------------------------


async def made_here(house: House) -> dict[str, str]:
    """One of everything that has an id, in the first organisation."""

    async def post(path: str, **fields: Any) -> Any:
        answer = await house.client.post(path, json=fields)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json()

    task_id = await house.submit()
    await house.ended(task_id)
    here = "/v1/organizations"
    headers = {"anthropic-version": "2023-06-01"}
    upload = {"file": ("a.txt", b"x", "text/plain")}
    file = (await house.client.post("/v1/files", files=upload, headers=headers)).json()
    requests = [{"custom_id": "a", "params": CALL}]
    batch = await post("/v1/messages/batches", requests=requests)
    response = await post("/v1/responses", model="haiku", input="Ours.")
    key = await new_key(house, {"read:tasks"})
    subject = {"type": "key", "id": key["id"]}
    agent = await post("/v1/agents", name="a", model="haiku")
    environment = await post("/v1/environments", name="e")
    session = await post("/v1/sessions", agent=agent["id"], environment_id=environment["id"])
    workspace = await post(f"{here}/workspaces", name="w")
    account = await post(f"{here}/service_accounts", name="mine")
    user = await post("/api/admin/users", email="a@example.org", name="A")
    invite = await post(f"{here}/invites", email="c@example.org", role="user")
    call_id = await _kept(house)
    of_user = await post("/api/admin/keys", name="of-user", user_id=user["id"])
    asked = await house.client.post(
        f"{here}/spend_limit_increase_requests", json={}, headers=house.as_key(of_user["key"])
    )
    limit = await post(f"{here}/spend_limits", amount="5", scope={"type": "organization"})
    resources = f"/v1/sessions/{session['id']}/resources"
    return NEVER | {
        "resource_id": (await post(resources, type="file", file_id=file["id"]))["id"],
        "spend_limit_id": limit["id"],
        "task_id": task_id,
        "budget_id": (await post("/v1/budgets", subject=subject, limit_usd="1"))["id"],
        "key_id": key["id"],
        "api_key_id": key["id"],
        "user_id": user["id"],
        "invite_id": invite["id"],
        "agent_id": agent["id"],
        "environment_id": environment["id"],
        "session_id": session["id"],
        "file_id": file["id"],
        "batch_id": batch["id"],
        "response_id": response["id"],
        "call_id": call_id,
        "job_id": await parked(house),
        "project_id": workspace["id"],
        "workspace_id": workspace["id"],
        "service_account_id": account["id"],
        "rate_limit_id": "rlmt_default",
        "spend_limit_increase_request_id": asked.json()["id"],
    }


async def _kept(house: House) -> str:
    """A call whose words are kept."""
    policy = "/api/admin/projects/proj_default/call-policy"
    (await house.client.put(policy, json={"enabled": True})).raise_for_status()
    (await house.client.post("/v1/messages", json=CALL)).raise_for_status()
    async with asyncio.timeout(20):
        while not (found := (await house.client.get("/v1/calls")).json()["calls"]):
            await asyncio.sleep(0.02)
    return str(found[0]["id"])


async def test_another_tenant_finds_nothing_of_ours(unlimited: House) -> None:
    ids = await made_here(unlimited)
    tenant = await unlimited.client.post("/api/admin/organizations", json={"name": "Two"})
    visitor = Visitor(unlimited, tenant.json()["key"], ids)
    never = Visitor(unlimited, tenant.json()["key"])
    ours = {value for name, value in ids.items() if value != NEVER[name]} - {"rlmt_default"}
    for name, row in ROWS.items():
        if row.scopes == OPEN or name in {
            "POST /api/v1/clients/regenerate-key",  # would end this visitor
            "DELETE /api/v1/clients/me",
            "GET /v1/models/{model}",  # nobody's
            "GET /v1/providers/{provider}/models",
        }:
            continue
        answer = await visitor.ask(name)
        if "{" in name:
            same = _told(answer, ids) == _told(await never.ask(name), NEVER)
            ok = answer.status_code == 404 and same
            await visitor.expect(name, answer, ok, "404, as for what never was")
        else:
            ok = not any(value in answer.text for value in ours)
            await visitor.expect(name, answer, ok, "without what is ours")
    assert not visitor.wrong, "\n".join(visitor.wrong)


def _told(answer: httpx.Response, ids: Mapping[str, str]) -> str:
    """An error without its request's id, and without the ids that were asked for."""
    try:
        body = answer.json()
    except json.JSONDecodeError:
        return answer.text
    if isinstance(body, dict):
        body.pop("request_id", None)
    text = json.dumps(body, sort_keys=True)
    for value in ids.values():
        text = text.replace(value, "ID")
    return text
