"""Anthropic's Admin API by the official SDK, unmodified; each reply is its own model, exactly."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import AsyncAnthropic
from pydantic import BaseModel

from stationmaster.kernel.clock import iso
from tests.http.conftest import ADMIN, STRANGER, USER, House

NEVER = "01jd3k00000000000000000000"


def client(house: House, key: str = ADMIN) -> AsyncAnthropic:
    return AsyncAnthropic(
        base_url=house.url, api_key=key, max_retries=0, _strict_response_validation=True
    )


@pytest.fixture
async def sdk(house: House) -> AsyncIterator[AsyncAnthropic]:
    async with client(house) as made:
        yield made


def exact(value: Any) -> Any:
    """The value, every part of which has the fields of its model and no others."""
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{type(value).__name__} has {value.model_extra}"
        missing = set(type(value).model_fields) - value.model_fields_set
        assert not missing, f"{type(value).__name__} lacks {missing}"
        for name in value.model_fields_set:
            exact(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            exact(item)
    return value


async def refused(call: Any, status: int, code: str | None = None) -> anthropic.APIStatusError:
    with pytest.raises(anthropic.APIStatusError) as caught:
        await call
    assert caught.value.status_code == status, caught.value.body
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["message"]
    assert body["request_id"].startswith("req_")
    if code is not None:
        assert body["error"]["details"]["error_code"] == code, body
    return caught.value


# --- the organisation and its people ----------------------------------------------------------


async def test_the_organisation_of_a_key(sdk: AsyncAnthropic, house: House) -> None:
    mine = exact(await sdk.beta.organization.retrieve())
    assert (mine.id, mine.type) == ("org_default", "organization")
    async with client(house, USER) as user:  # everybody may ask for his own
        assert (await user.beta.organization.retrieve()).id == mine.id


async def test_a_person_is_invited_comes_in_and_is_managed(
    sdk: AsyncAnthropic, house: House
) -> None:
    organization = sdk.beta.organization
    invite = exact(await organization.invites.create(email="Ada@Example.org", role="developer"))
    assert (invite.email, invite.status) == ("ada@example.org", "pending")
    assert exact(await organization.invites.retrieve(invite.id)) == invite
    listed = await organization.invites.list(statuses=["pending"], roles=["developer"])
    assert [exact(item) for item in listed.data] == [invite]
    assert (await organization.invites.list(statuses=["accepted", "expired"])).data == []
    second = organization.invites.create(email="ada@example.org", role="user")
    await refused(second, 409, "invite_exists")

    told = await house.client.post(f"/api/admin/invites/{invite.id}/token")
    body = {"token": told.json()["token"], "name": "Ada"}
    accepted = await house.client.post("/api/invites/accept", json=body, headers=house.as_key(None))
    assert accepted.status_code == 200, accepted.text
    again = await house.client.post("/api/invites/accept", json=body, headers=house.as_key(None))
    assert again.status_code == 401

    user_id = accepted.json()["id"]
    user = exact(await organization.users.retrieve(user_id))
    assert (user.email, user.name, user.role) == ("ada@example.org", "Ada", "developer")
    assert [item.id for item in (await organization.users.list(roles=["developer"])).data] == [
        user_id
    ]
    assert (await organization.users.list(email="nobody@example.org")).data == []
    assert exact(await organization.users.update(user_id, role="user")).role == "user"
    await refused(organization.users.update(user_id, role="billing"), 400, "unsupported")
    await refused(organization.invites.delete(invite.id), 409, "invite_accepted")
    removed = exact(await organization.users.remove(user_id))
    assert (removed.id, removed.type) == (user_id, "user_deleted")
    await refused(organization.users.retrieve(user_id), 404)


async def test_an_invite_is_taken_back(sdk: AsyncAnthropic, house: House) -> None:
    invites = sdk.beta.organization.invites
    invite = await invites.create(email="bob@example.org", role="user")
    token = (await house.client.post(f"/api/admin/invites/{invite.id}/token")).json()["token"]
    gone = exact(await invites.delete(invite.id))
    assert (gone.id, gone.type) == (invite.id, "invite_deleted")
    await refused(invites.retrieve(invite.id), 404)
    body = {"token": token, "name": "Bob"}
    answer = await house.client.post("/api/invites/accept", json=body, headers=house.as_key(None))
    assert answer.status_code == 401
    for wrong in ("", "x", f"invite_{NEVER}.{'0' * 64}", token[:-1], "é" * 40):
        body = {"token": wrong, "name": "Bob"}
        answer = await house.client.post("/api/invites/accept", json=body)
        assert answer.status_code in {401, 422}, answer.text


# --- workspaces -------------------------------------------------------------------------------


async def test_a_workspace_is_made_changed_and_archived(sdk: AsyncAnthropic) -> None:
    workspaces = sdk.beta.organization.workspaces
    made = exact(
        await workspaces.create(name="Research", display_color="#102030", tags={"team": "a"})
    )
    assert (made.name, made.display_color, made.tags) == ("Research", "#102030", {"team": "a"})
    assert exact(await workspaces.retrieve(made.id)) == made
    changed = exact(await workspaces.update(made.id, name="Lab", tags={"team": None, "x": "1"}))
    assert (changed.name, changed.tags, changed.display_color) == ("Lab", {"x": "1"}, "#102030")
    assert [item.id for item in (await workspaces.list()).data] == [made.id]
    both = await workspaces.list(include_default=True)
    assert {item.id for item in both.data} == {made.id, "proj_default"}
    assert [item.id for item in (await workspaces.list(ids=[made.id])).data] == [made.id]
    archived = exact(await workspaces.archive(made.id))
    assert archived.archived_at is not None
    assert await workspaces.archive(made.id) == archived
    assert (await workspaces.list()).data == []
    assert len((await workspaces.list(include_archived=True)).data) == 1
    await refused(workspaces.update(made.id, name="Again"), 409, "project_archived")
    await refused(workspaces.archive("proj_default"), 400, "default_project")


async def test_a_workspace_refuses_what_is_not_here(sdk: AsyncAnthropic) -> None:
    workspaces: Any = sdk.beta.organization.workspaces
    fields: Any
    for fields in (
        {"external_key_id": "key"},
        {"user_profile_id": "profile"},
        {"data_residency": {"default_inference_geo": "us"}},
        {"data_residency": {"workspace_geo": ["us"]}},
    ):
        await refused(workspaces.create(name="a", **fields), 400, "unsupported")
    for fields in (
        {"name": ""},
        {"name": "x" * 257},
        {"name": "a\0b"},
        {"name": "a", "display_color": "red"},
        {"name": "a", "tags": {"anthropic-x": "1"}},
        {"name": "a", "tags": {"": "1"}},
    ):
        await refused(workspaces.create(**fields), 400)
    same = {"workspace_geo": "us", "allowed_inference_geos": "unrestricted"}
    await workspaces.create(name="as it is", data_residency=same)
    await refused(workspaces.list(ids=[f"proj_{number}" for number in range(101)]), 400)


async def test_lists_are_walked_in_both_directions(sdk: AsyncAnthropic) -> None:
    workspaces = sdk.beta.organization.workspaces
    made = [(await workspaces.create(name=f"w{number}")).id for number in range(5)]
    newest = sorted(made, reverse=True)
    walked = [item.id async for item in workspaces.list(limit=2)]
    assert walked == newest
    first = await workspaces.list(limit=2)
    assert (first.first_id, first.last_id, first.has_more) == (newest[0], newest[1], True)
    back = await workspaces.list(limit=2, before_id=newest[4])
    assert [item.id for item in back.data] == newest[2:4]
    assert back.has_more
    await refused(workspaces.list(after_id=newest[0], before_id=newest[1]), 400)
    await refused(workspaces.list(limit=0), 400)
    await refused(workspaces.list(limit=1001), 400)
    await refused(workspaces.list(after_id="nonsense"), 404)


async def test_members_of_a_workspace(sdk: AsyncAnthropic, house: House) -> None:
    workspaces = sdk.beta.organization.workspaces
    place = (await workspaces.create(name="Research")).id
    user_id = await person(house)
    member = exact(
        await workspaces.members.add(place, user_id=user_id, workspace_role="workspace_developer")
    )
    assert (member.user_id, member.workspace_id) == (user_id, place)
    again = workspaces.members.add(place, user_id=user_id, workspace_role="workspace_user")
    await refused(again, 409, "member_exists")
    assert exact(await workspaces.members.retrieve(user_id, workspace_id=place)) == member
    assert [exact(each) for each in (await workspaces.members.list(place)).data] == [member]
    changed = await workspaces.members.update(
        user_id, workspace_id=place, workspace_role="workspace_admin"
    )
    assert exact(changed).workspace_role == "workspace_admin"
    billing = workspaces.members.update(
        user_id, workspace_id=place, workspace_role="workspace_billing"
    )
    await refused(billing, 400, "unsupported")
    gone = exact(await workspaces.members.remove(user_id, workspace_id=place))
    assert gone.type == "workspace_member_deleted"
    await refused(workspaces.members.retrieve(user_id, workspace_id=place), 404)
    nobody = workspaces.members.add(place, user_id=f"user_{NEVER}", workspace_role="workspace_user")
    await refused(nobody, 404)


async def test_rate_limits_of_a_workspace(sdk: AsyncAnthropic, house: House) -> None:
    workspaces = sdk.beta.organization.workspaces
    place = (await workspaces.create(name="Research")).id
    assert (await workspaces.rate_limits.list(place)).data == []
    assert (await sdk.beta.organization.rate_limits.list()).data == []
    own = {"limits": {"requests_per_minute": 100, "output_tokens_per_minute": 5000}}
    assert (await house.client.patch("/api/admin/organization", json=own)).status_code == 200
    (entry,) = (await sdk.beta.organization.rate_limits.list(model="haiku")).data
    exact(entry)
    assert {each.type: each.value for each in entry.limits} == own["limits"]
    changed = exact(
        await workspaces.rate_limits.update(
            entry.id, workspace_id=place, limits=[{"type": "requests_per_minute", "value": 20}]
        )
    )
    (value,) = changed.limits
    assert (value.value, value.org_limit, value.source.type) == (20, 100, "workspace")
    (shown,) = (await workspaces.rate_limits.list(place)).data
    assert exact(shown) == changed
    (inherited,) = (await workspaces.rate_limits.list(place, include_inherited=True)).data
    assert {(each.type, each.source.type) for each in inherited.limits} == {
        ("requests_per_minute", "workspace"),
        ("output_tokens_per_minute", "organization"),
    }
    assert (await workspaces.rate_limits.list(place, group_type="files")).data == []
    cleared = await workspaces.rate_limits.update(
        entry.id, workspace_id=place, limits=[{"type": "requests_per_minute", "value": None}]
    )
    assert cleared.limits == []
    daily = workspaces.rate_limits.update(
        entry.id, workspace_id=place, limits=[{"type": "tokens_per_day", "value": 1}]
    )
    await refused(daily, 400, "unsupported")
    call = workspaces.rate_limits.update("rlmt_other", workspace_id=place, limits=[])
    await refused(call, 404)
    await refused(sdk.beta.organization.rate_limits.list(model="no-such-model"), 404)
    await refused(sdk.beta.organization.rate_limits.list(page="x"), 400)


# --- service accounts -------------------------------------------------------------------------


async def test_service_accounts_and_their_workspaces(sdk: AsyncAnthropic) -> None:
    organization = sdk.beta.organization
    accounts, workspaces = organization.service_accounts, organization.workspaces
    made = exact(await accounts.create(name="ci-runner", description="Builds."))
    assert (made.name, made.organization_role) == ("ci-runner", "developer")
    await refused(accounts.create(name="ci-runner"), 409, "name_taken")
    for name in ("", "Upper", "-x", "x" * 64, "a b", "a\n"):
        await refused(accounts.create(name=name), 400)
    assert exact(await accounts.retrieve(made.id)) == made
    changed = exact(await accounts.update(made.id, description=None, organization_role="admin"))
    assert (changed.description, changed.organization_role) == ("", "admin")
    assert [item.id async for item in accounts.list(limit=1)] == [made.id]

    place = (await workspaces.create(name="Research")).id
    added = exact(
        await accounts.workspaces.add(made.id, workspace_id=place, workspace_role="workspace_user")
    )
    assert (added.service_account_id, added.workspace_id) == (made.id, place)
    assert [exact(item) for item in (await accounts.workspaces.list(made.id)).data] == [added]
    beside = workspaces.service_accounts
    assert exact(await beside.retrieve(made.id, workspace_id=place)) == added
    assert [exact(item) for item in (await beside.list(place)).data] == [added]
    better = await beside.update(made.id, workspace_id=place, workspace_role="workspace_developer")
    assert exact(better).workspace_role == "workspace_developer"
    exact(await accounts.workspaces.remove(place, service_account_id=made.id))
    await beside.add(place, service_account_id=made.id, workspace_role="workspace_user")
    exact(await beside.remove(made.id, workspace_id=place))
    await refused(beside.retrieve(made.id, workspace_id=place), 404)

    archived = exact(await accounts.archive(made.id))
    assert archived.archived_at is not None
    assert await accounts.archive(made.id) == archived
    assert (await accounts.list()).data == []
    assert len((await accounts.list(include_archived=True)).data) == 1
    await refused(accounts.update(made.id, description="x"), 409, "account_archived")
    late = beside.add(place, service_account_id=made.id, workspace_role="workspace_user")
    await refused(late, 404)


# --- keys -------------------------------------------------------------------------------------


async def test_keys_are_listed_changed_and_ended(sdk: AsyncAnthropic, house: House) -> None:
    keys, workspaces = sdk.beta.organization.api_keys, sdk.beta.organization.workspaces
    place = (await workspaces.create(name="Research")).id
    account = await sdk.beta.organization.service_accounts.create(name="ci")
    await workspaces.service_accounts.add(
        place, service_account_id=account.id, workspace_role="workspace_developer"
    )
    user_id = await person(house, role="owner")
    there = await new_key(house, project_id=place, service_account_id=account.id)
    here = await new_key(house, user_id=user_id, expires_in_days=3)
    shown = exact(await keys.retrieve(there["id"]))
    assert shown.scope.workspace_id == place
    assert shown.principal.service_account_id == account.id
    assert shown.partial_key_hint.endswith(there["key"][-4:])
    assert exact(await keys.retrieve(here["id"])).principal.user_id == user_id
    assert {key.id async for key in keys.list(limit=1)} >= {there["id"], here["id"]}
    assert [key.id for key in (await keys.list(workspace_id=place)).data] == [there["id"]]

    assert await works(house, there["key"])
    assert exact(await keys.update(there["id"], status="inactive", name="paused")).name == "paused"
    assert not await works(house, there["key"])
    assert [key.id for key in (await keys.list(status="inactive")).data] == [there["id"]]
    await keys.update(there["id"], status="active")
    assert await works(house, there["key"])
    assert exact(await keys.update(there["id"], status="archived")).status == "archived"
    assert not await works(house, there["key"])
    assert (await keys.update(there["id"], status="archived")).status == "archived"
    await refused(keys.update(there["id"], status="active"), 400, "key_revoked")
    await refused(keys.retrieve(f"key_{NEVER}"), 404)


async def test_keys_end_with_whom_they_belong_to(sdk: AsyncAnthropic, house: House) -> None:
    organization = sdk.beta.organization
    place = (await organization.workspaces.create(name="Research")).id
    account = await organization.service_accounts.create(name="ci", organization_role="admin")
    user_id = await person(house)
    of_account = await new_key(house, service_account_id=account.id)
    of_user = await new_key(house, user_id=user_id)
    of_place = await new_key(house, project_id=place)
    for key in (of_account, of_user, of_place):
        assert await works(house, key["key"])
    await organization.users.update(user_id, role="user")  # a viewer: it may only read now
    assert await works(house, of_user["key"])
    answer = await house.client.post(
        "/v1/tasks", json={"description": "x"}, headers=house.as_key(of_user["key"])
    )
    assert answer.status_code == 403
    await organization.service_accounts.archive(account.id)
    await organization.users.remove(user_id)
    await organization.workspaces.archive(place)
    for key in (of_account, of_user, of_place):
        assert not await works(house, key["key"])


# --- money ------------------------------------------------------------------------------------


async def test_reports_are_the_ledger_to_the_micro_dollar(
    sdk: AsyncAnthropic, house: House
) -> None:
    for model in ("haiku", "sonnet", "haiku"):
        body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "Hi."}]}
        assert (await house.client.post("/v1/messages", json=body)).status_code == 200
    usage = (await house.client.get("/v1/usage")).json()
    analytics = sdk.beta.organization.analytics
    since = iso(house.services.clock.now() - 3_600_000)
    for width in ("1d", "1h", "1m"):
        cost = [
            exact(bucket)
            async for bucket in analytics.cost_report.list(
                starting_at=since, bucket_width=width, limit=31, group_by=["model"]
            )
        ]
        cents = sum(Decimal(row.amount) for bucket in cost for row in bucket.results)
        assert cents == Decimal(str(usage["total_cost"])) * 100
        assert {row.model for bucket in cost for row in bucket.results} == {
            "claude-haiku-5-5",
            "claude-sonnet-5-5",
        }
        starts = [bucket.starting_at for bucket in cost]
        assert starts == sorted(set(starts))
        assert [bucket.ending_at for bucket in cost][:-1] == starts[1:]
        report = [
            exact(bucket)
            async for bucket in analytics.usage_report.list(
                starting_at=since, bucket_width=width, limit=31
            )
        ]
        rows = [row for bucket in report for row in bucket.results]
        assert sum(row.requests or 0 for row in rows) == usage["total_calls"] == 3
        tokens = sum(
            row.uncached_input_tokens
            + row.output_tokens
            + row.cache_read_input_tokens
            + row.cache_creation.ephemeral_5m_input_tokens
            + row.cache_creation.ephemeral_1h_input_tokens
            for row in rows
        )
        assert tokens == usage["total_tokens"]
    only = await analytics.cost_report.list(starting_at=since, models=["claude-sonnet-5-5"])
    assert sum(row.requests or 0 for bucket in only.data for row in bucket.results) == 1
    none = await analytics.usage_report.list(starting_at=since, user_ids=["user_nobody"])
    assert all(not bucket.results for bucket in none.data)


async def test_reports_refuse_what_cannot_be_told(sdk: AsyncAnthropic) -> None:
    reports: Any = sdk.beta.organization.analytics.cost_report
    wrong: Any
    for wrong in (
        {"starting_at": "yesterday"},
        {"starting_at": "2099-01-01T00:00:00Z"},
        {"starting_at": "2026-01-02T00:00:00Z", "ending_at": "2026-01-01T00:00:00Z"},
        {"starting_at": "2026-01-01T00:00:00Z", "group_by": ["product"]},
        {"starting_at": "2026-01-01T00:00:00Z", "limit": 32},
        {"starting_at": "2026-01-01T00:00:00Z", "page": "7"},
        {"starting_at": "2026-01-01T00:00:00Z", "page": "x"},
        {"starting_at": "2026-01-01T00:00:00Z", "products": ["chat"]},
    ):
        await refused(reports.list(**wrong), 400)


async def test_spend_limits_hold_and_are_shown(sdk: AsyncAnthropic, house: House) -> None:
    limits = sdk.beta.organization.spend_limits
    user_id = await person(house)
    key = await new_key(house, user_id=user_id)
    place = (await sdk.beta.organization.workspaces.create(name="Research")).id
    made = exact(await limits.set(amount="50000", scope={"type": "organization"}))
    assert (made.amount, made.period, made.scope.type) == ("50000", "monthly", "organization")
    again = await limits.set(amount="60000", scope={"type": "organization"})
    assert (again.id, again.amount) == (made.id, "60000")
    of_place = await limits.set(
        amount="5", scope={"type": "workspace", "workspace_id": place}, period="daily"
    )
    of_user = await limits.set(amount="0", scope={"type": "user", "user_id": user_id})
    assert exact(await limits.retrieve(of_user.id)) == of_user
    assert {each.id async for each in limits.list(limit=1)} == {made.id, of_place.id, of_user.id}
    listed = await limits.list(scope_type=["workspace"])
    assert [exact(each).id for each in listed.data] == [of_place.id]

    call = {"model": "haiku", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi."}]}
    refusal = await house.client.post("/v1/messages", json=call, headers=house.as_key(key["key"]))
    assert refusal.status_code == 402, refusal.text
    (row,) = (await limits.effective.list(user_ids=[user_id], period=["monthly"])).data
    exact(row)
    assert (row.amount, row.period_to_date_spend, row.source.type) == ("0", "0", "user")
    gone = exact(await limits.delete(of_user.id))
    assert gone.type == "spend_limit_deleted"
    await refused(limits.retrieve(of_user.id), 404)
    served = await house.client.post("/v1/messages", json=call, headers=house.as_key(key["key"]))
    assert served.status_code == 200, served.text
    (row,) = (await limits.effective.list()).data
    assert (row.amount, row.source.type) == ("60000", "organization")
    assert Decimal(row.period_to_date_spend) > 0

    wrong: Any
    for wrong in (
        {"amount": None, "scope": {"type": "organization"}},
        {"amount": "1.5", "scope": {"type": "organization"}},
        {"amount": "-1", "scope": {"type": "organization"}},
        {"amount": "1", "scope": {"type": "organization", "user_id": user_id}},
        {"amount": "1", "scope": {"type": "workspace"}},
        {"amount": "1", "scope": {"type": "seat_tier"}},
        {"amount": "1", "scope": {"type": "organization"}, "period": "yearly"},
    ):
        await refused(limits.set(**wrong), 400)
    nowhere: Any = {"type": "workspace", "workspace_id": f"proj_{NEVER}"}
    await refused(limits.set(amount="1", scope=nowhere), 404)


# --- who may, and what there is not -----------------------------------------------------------


async def test_who_only_uses_the_server_manages_nobody(house: House) -> None:
    async with client(house, USER) as user:
        organization = user.beta.organization
        for call in (
            organization.users.list(),
            organization.invites.create(email="x@example.org", role="user"),
            organization.workspaces.create(name="x"),
            organization.service_accounts.list(),
            organization.api_keys.list(),
            organization.rate_limits.list(),
        ):
            error = await refused(call, 403, "permission_denied")
            assert isinstance(error, anthropic.PermissionDeniedError)
    async with client(house, "wrong") as nobody:
        error = await refused(nobody.beta.organization.users.list(), 401)
        assert isinstance(error, anthropic.AuthenticationError)


async def test_another_organisations_people_and_places_are_not_there(
    sdk: AsyncAnthropic, house: House, stranger: dict[str, str]
) -> None:
    del stranger  # made by the fixture
    organization = sdk.beta.organization
    place = (await organization.workspaces.create(name="Research")).id
    account = await organization.service_accounts.create(name="ci")
    invite = await organization.invites.create(email="x@example.org", role="user")
    user_id = await person(house)
    key = await new_key(house)
    async with client(house, STRANGER) as other:
        theirs = other.beta.organization
        for call in (
            theirs.workspaces.retrieve(place),
            theirs.workspaces.update(place, name="mine"),
            theirs.workspaces.archive(place),
            theirs.workspaces.members.list(place),
            theirs.workspaces.members.add(place, user_id=user_id, workspace_role="workspace_user"),
            theirs.workspaces.members.add(
                "proj_2", user_id=user_id, workspace_role="workspace_user"
            ),
            theirs.workspaces.service_accounts.add(
                "proj_2", service_account_id=account.id, workspace_role="workspace_user"
            ),
            theirs.workspaces.rate_limits.list(place),
            theirs.service_accounts.retrieve(account.id),
            theirs.service_accounts.archive(account.id),
            theirs.service_accounts.workspaces.list(account.id),
            theirs.users.retrieve(user_id),
            theirs.users.update(user_id, role="user"),
            theirs.users.remove(user_id),
            theirs.invites.retrieve(invite.id),
            theirs.invites.delete(invite.id),
            theirs.api_keys.retrieve(key["id"]),
            theirs.api_keys.update(key["id"], status="inactive"),
        ):
            await refused(call, 404)
        assert (await theirs.users.list()).data == []
        assert (await theirs.invites.list()).data == []
        assert (await theirs.service_accounts.list()).data == []
        assert [each.id for each in (await theirs.workspaces.list()).data] == ["proj_2"]
        assert [each.name for each in (await theirs.api_keys.list()).data] == ["stranger"]
        assert (await theirs.api_keys.list(workspace_id=place)).data == []
    assert await works(house, key["key"])


async def test_what_is_not_here_is_404_in_the_sdks_shape(sdk: AsyncAnthropic) -> None:
    organization = sdk.beta.organization
    for call in (
        organization.external_keys.list(),
        organization.rbac_groups.list(),
        organization.compliance_settings.retrieve(),
        organization.telemetry_destinations.list(),
        organization.plugins.list(),
        organization.webhooks.list(),
    ):
        error = await refused(call, 404)
        assert isinstance(error, anthropic.NotFoundError)


# --- short ways -------------------------------------------------------------------------------


async def person(house: House, role: str = "member", email: str = "eve@example.org") -> str:
    body = {"email": email, "name": "Eve", "role": role}
    answer = await house.client.post("/api/admin/users", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def new_key(house: House, **fields: Any) -> Any:
    answer = await house.client.post("/api/admin/keys", json={"name": "made", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def works(house: House, key: str) -> bool:
    answer = await house.client.get("/v1/tasks", headers=house.as_key(key))
    assert answer.status_code in {httpx.codes.OK, httpx.codes.UNAUTHORIZED}, answer.text
    return answer.status_code == httpx.codes.OK


async def test_a_user_asks_for_more_and_is_granted_it(sdk: AsyncAnthropic, house: House) -> None:
    limits = sdk.beta.organization.spend_limits
    requests = limits.increase_requests
    user_id = await person(house)
    key = await new_key(house, user_id=user_id)
    await limits.set(amount="0", scope={"type": "user", "user_id": user_id})
    call = {"model": "haiku", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi."}]}
    refusal = await house.client.post("/v1/messages", json=call, headers=house.as_key(key["key"]))
    assert refusal.status_code == 402, refusal.text

    place = "/v1/organizations/spend_limit_increase_requests"
    asked = await house.client.post(place, json={}, headers=house.as_key(key["key"]))
    assert asked.status_code == 200, asked.text
    assert (await house.client.post(place, json={})).status_code == 400  # a key of nobody

    (found,) = (await requests.list(status=["pending"], actor_ids=[user_id])).data
    assert found.id == asked.json()["id"]
    assert (found.status, found.period, found.resolved_at) == ("pending", "monthly", None)
    assert found.actor.type == "user_actor"
    assert (found.actor.user_id, found.actor.deleted) == (user_id, False)
    assert found.spend_summary is not None
    assert (found.spend_summary.amount, found.spend_summary.source.type) == ("0", "user")
    assert exact(await requests.retrieve(found.id)) == exact(found)
    assert (await requests.list(status=["approved", "denied"])).data == []
    assert (await requests.list(actor_ids=[f"user_{NEVER}"])).data == []

    approved = exact(await requests.approve(found.id, amount="2500", suppress_notification=True))
    assert (approved.status, approved.spend_limit.amount) == ("approved", "2500")
    assert approved.spend_limit.scope.user_id == user_id
    assert approved.resolved_by.type == "scoped_api_key_actor"
    served = await house.client.post("/v1/messages", json=call, headers=house.as_key(key["key"]))
    assert served.status_code == 200, served.text
    await refused(requests.approve(found.id, amount="1"), 400, "request_resolved")
    await refused(requests.deny(found.id), 400, "request_resolved")


async def test_a_request_is_denied_and_goes_with_its_user(
    sdk: AsyncAnthropic, house: House
) -> None:
    requests = sdk.beta.organization.spend_limits.increase_requests
    user_id = await person(house)
    key = await new_key(house, user_id=user_id)
    place = "/v1/organizations/spend_limit_increase_requests"
    ids = []
    for period in ("daily", "weekly"):
        asked = await house.client.post(
            place, json={"period": period}, headers=house.as_key(key["key"])
        )
        ids.append(asked.json()["id"])
    assert {each.id async for each in requests.list(limit=1)} == set(ids)
    denied = exact(await requests.deny(ids[0]))
    assert (denied.status, denied.spend_summary) == ("denied", None)
    assert await requests.deny(ids[0]) == denied
    wrong: Any
    for wrong in ({"amount": "1.5"}, {"amount": "-1"}, {"amount": "1", "period": "yearly"}):
        await refused(requests.approve(ids[1], **wrong), 400)
    status: Any = ["open"]
    await refused(requests.list(status=status), 400)
    await refused(requests.list(page="x"), 400, "invalid_cursor")
    await sdk.beta.organization.users.remove(user_id)
    assert (await requests.list()).data == []
    for call in (requests.retrieve(ids[1]), requests.approve(ids[1], amount="1")):
        await refused(call, 404)


async def test_a_user_is_signed_out_everywhere(sdk: AsyncAnthropic, house: House) -> None:
    users = sdk.beta.organization.users
    made = await house.client.post(
        "/api/admin/users", json={"email": "grace@example.org", "name": "Grace"}
    )
    user_id, password = made.json()["id"], {"password": "a-long-password-1"}
    await house.client.put(f"/v1/auth/users/{user_id}/password", json=password)
    sign_in = {"email": "grace@example.org", **password}
    grants = [(await house.client.post("/v1/auth/login", json=sign_in)).json() for _ in range(2)]
    key = await new_key(house, user_id=user_id)

    async def me(token: str) -> int:
        answer = await house.client.get("/v1/auth/me", headers=house.as_key(token))
        return answer.status_code

    assert [await me(grant["access_token"]) for grant in grants] == [200, 200]
    assert exact(await users.sign_out(user_id)).id == user_id
    assert [await me(grant["access_token"]) for grant in grants] == [401, 401]
    for grant in grants:
        body = {"refresh_token": grant["refresh_token"]}
        assert (await house.client.post("/v1/auth/refresh", json=body)).status_code == 401
    assert await me(key["key"]) == 200  # keys are another matter
    assert (await house.client.post("/v1/auth/login", json=sign_in)).status_code == 200
    await users.sign_out(user_id)
    await refused(users.sign_out(f"user_{NEVER}"), 404)


async def test_not_everybody_signs_everybody_out(house: House, sdk: AsyncAnthropic) -> None:
    owner = await house.client.post(
        "/api/admin/users", json={"email": "o@example.org", "name": "O", "role": "owner"}
    )
    manager = await house.client.post(
        "/api/admin/keys", json={"name": "manager", "permissions": ["admin:members"]}
    )
    async with client(house, manager.json()["key"]) as other:
        await refused(
            other.beta.organization.users.sign_out(owner.json()["id"]),
            403,
            "cannot_sign_out_owner",
        )
    own = await new_key(house, user_id=owner.json()["id"], permissions=["*"])
    async with client(house, own["key"]) as self:
        await refused(
            self.beta.organization.users.sign_out(owner.json()["id"]), 400, "cannot_sign_out_self"
        )
