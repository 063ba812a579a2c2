"""Anthropic's Admin API: what the official SDKs send and read."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

Email = Annotated[str, Field(min_length=3, max_length=320)]
RoleName = Annotated[
    str, Field(max_length=32, description="`developer` or `user`; an owner may give `admin` too.")
]
WorkspaceRoleName = Annotated[
    str,
    Field(
        max_length=64, description="`workspace_admin`, `workspace_developer` or `workspace_user`."
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Tags = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]]
TagChanges = dict[
    Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)] | None
]
Unused = Annotated[Any, Field(description="Not supported: null, or as it is shown.")]


class Organization(Reply):
    """Yours."""

    id: str
    name: str
    type: Literal["organization"] = "organization"


class OrganizationUser(Reply):
    """A person in the organisation."""

    id: str
    added_at: str
    email: Annotated[str, Field(description="Empty for a user that only a client of yours knows.")]
    name: str
    role: Annotated[str, Field(description="`owner`, `admin`, `developer` or `user`.")]
    type: Literal["user"] = "user"


class OrganizationUserUpdate(Request):
    """A person's new role."""

    role: RoleName


class Removed(Reply):
    """Something that is there no more."""

    id: str
    type: str


class Invite(Reply):
    """A person who may come in."""

    id: str
    accepted_at: str | None
    email: str
    expires_at: str
    invited_at: str
    rbac_group_ids: tuple[str, ...] = ()
    role: str
    status: str
    type: Literal["invite"] = "invite"


class InviteCreate(Request):
    """Whom to invite."""

    email: Email
    role: RoleName
    rbac_group_ids: Annotated[
        list[str],
        Field(max_length=0, default_factory=list, description="Not supported."),
    ]


class DataResidency(Reply):
    """Where data is: this server has one place."""

    allowed_inference_geos: str = "unrestricted"
    default_inference_geo: str = "global"
    workspace_geo: str = "us"


class Workspace(Reply):
    """A project."""

    id: str
    archived_at: str | None
    compartment_id: str
    created_at: str
    data_residency: DataResidency = DataResidency()
    display_color: str
    external_key_id: None = None
    name: str
    tags: dict[str, str]
    type: Literal["workspace"] = "workspace"
    user_profile_id: None = None


class WorkspaceCreate(Request):
    """A project to be made."""

    name: Name
    display_color: Annotated[str | None, Field(max_length=16)] = None
    tags: Tags | None = None
    data_residency: Unused = None
    external_key_id: Unused = None
    user_profile_id: Unused = None


class WorkspaceUpdate(Request):
    """What is to be different of a project."""

    name: Name | None = None
    display_color: Annotated[str | None, Field(max_length=16)] = None
    tags: Annotated[TagChanges | None, Field(description="A tag that is null goes away.")] = None
    data_residency: Unused = None
    external_key_id: Unused = None
    user_profile_id: Unused = None


class WorkspaceMember(Reply):
    """A person in a project."""

    type: Literal["workspace_member"] = "workspace_member"
    user_id: str
    workspace_id: str
    workspace_role: str


class WorkspaceMemberAdd(Request):
    """Whom to bring into a project."""

    user_id: Annotated[str, Field(max_length=64)]
    workspace_role: WorkspaceRoleName


class WorkspaceRoleUpdate(Request):
    """A member's new role."""

    workspace_role: WorkspaceRoleName


class WorkspaceMemberRemoved(Reply):
    """A person is in the project no more."""

    type: Literal["workspace_member_deleted"] = "workspace_member_deleted"
    user_id: str
    workspace_id: str


class ServiceAccount(Reply):
    """A program's identity."""

    id: str
    archived_at: str | None
    archived_by_actor_id: str | None
    created_at: str
    created_by_actor_id: str | None
    description: str | None
    name: str
    organization_role: str
    type: Literal["service_account"] = "service_account"
    updated_at: str
    updated_by_actor_id: str | None


class ServiceAccountCreate(Request):
    """A service account to be made."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    description: Annotated[str | None, Field(max_length=4096)] = None
    organization_role: Annotated[str, Field(max_length=32)] = "developer"


class ServiceAccountUpdate(Request):
    """What is to be different of a service account."""

    description: Annotated[str | None, Field(max_length=4096)] = None
    organization_role: Annotated[str | None, Field(max_length=32)] = None


class ServiceAccountMember(Reply):
    """A service account in a project."""

    created_by_actor_id: str | None
    implicit: bool = False
    service_account_id: str
    type: Literal["service_account_workspace_member"] = "service_account_workspace_member"
    workspace_id: str
    workspace_role: str


class ServiceAccountAdd(Request):
    """Which service account to bring into a project."""

    service_account_id: Annotated[str, Field(max_length=64)]
    workspace_role: WorkspaceRoleName


class AccountWorkspaceAdd(Request):
    """Into which project to bring a service account."""

    workspace_id: Annotated[str, Field(max_length=64)]
    workspace_role: WorkspaceRoleName


class ServiceAccountMemberRemoved(Reply):
    """A service account is in the project no more."""

    service_account_id: str
    type: Literal["service_account_workspace_member_deleted"] = (
        "service_account_workspace_member_deleted"
    )
    workspace_id: str


class Actor(Reply):
    """Who did it."""

    id: str
    type: Literal["service_account", "user"]


class KeyOfAdminApi(Reply):
    """An API key, without its secret."""

    id: str
    created_at: str
    created_by: Actor | None
    expires_at: str | None
    name: str
    partial_key_hint: str | None
    principal: Annotated[
        dict[str, str] | None, Field(description="The user or service account that it is of.")
    ]
    scope: Annotated[dict[str, str], Field(description="The project that it is in.")]
    status: str
    type: Literal["api_key"] = "api_key"


class KeyUpdateOfAdminApi(Request):
    """What is to be different of a key."""

    name: Annotated[str | None, Field(max_length=256)] = None
    status: Literal["active", "archived", "inactive"] | None = None


class RateGroup(Reply):
    """What limits apply to: here, every model."""

    id: str = "all_models"
    display_name: str = "All models"
    type: Literal["model_group"] = "model_group"


class RateValue(Reply):
    """One limit."""

    type: str
    value: int


class OrganizationRateLimit(Reply):
    """The organisation's own limits."""

    id: str
    group: RateGroup = RateGroup()
    limits: list[RateValue]
    models: list[str]
    type: Literal["rate_limit"] = "rate_limit"


class WorkspaceRateValue(Reply):
    """One limit of a project, or of its organisation where the project has none."""

    org_limit: int | None
    source: dict[str, str]
    type: str
    value: int


class WorkspaceRateLimit(Reply):
    """A project's own limits."""

    group: RateGroup = RateGroup()
    limits: list[WorkspaceRateValue]
    models: list[str]
    rate_limit_id: str
    type: Literal["workspace_rate_limit"] = "workspace_rate_limit"
    workspace_id: str


class RateChange(Request):
    """A limit to be set; null takes it away."""

    type: Annotated[str, Field(max_length=64)]
    value: Annotated[int | None, Field(ge=0, le=10**12)]


class WorkspaceRateLimitUpdate(Request):
    """Limits to be set. Others stay."""

    limits: Annotated[list[RateChange], Field(max_length=20)]


class _Page(Reply):
    """A part of a list, walked by ids in both directions."""

    has_more: bool
    first_id: str | None
    last_id: str | None


class UserPage(_Page):
    """Users, newest first."""

    data: list[OrganizationUser]


class InvitePage(_Page):
    """Invites, newest first."""

    data: list[Invite]


class WorkspacePage(_Page):
    """Projects, newest first."""

    data: list[Workspace]


class WorkspaceMemberPage(_Page):
    """Members of a project."""

    data: list[WorkspaceMember]


class KeyPage(_Page):
    """Keys, newest first."""

    data: list[KeyOfAdminApi]


class ServiceAccountPage(Reply):
    """Service accounts, newest first."""

    data: list[ServiceAccount]
    next_page: str | None


class ServiceAccountMemberPage(Reply):
    """Service accounts in projects."""

    data: list[ServiceAccountMember]
    next_page: str | None


class OrganizationRateLimitPage(Reply):
    """Limits: one entry, for every model."""

    data: list[OrganizationRateLimit]
    next_page: str | None = None


class WorkspaceRateLimitPage(Reply):
    """Limits of a project: one entry at most."""

    data: list[WorkspaceRateLimit]
    next_page: str | None = None
