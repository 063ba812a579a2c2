"""Anthropic's Admin API: an organisation's people, projects, accounts, keys, limits, spending."""

from stationmaster.http.routes.managed.organization import (
    accounts,
    increases,
    keys,
    people,
    reports,
    spending,
    workspaces,
)

ROUTES = (people, workspaces, accounts, keys, reports, spending, increases)
