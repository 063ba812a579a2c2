"""The OpenAPI document: what FastAPI finds out, and what it cannot know."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from stationmaster import __version__
from stationmaster.http.guard import Guarded
from stationmaster.http.problems import MEDIA_TYPE
from stationmaster.http.shapes.problem import Problem
from stationmaster.http.shapes.task import TaskRequest
from stationmaster.http.wire import operations

DESCRIPTION = """\
Run Claude Code and language models as one production service.

Send an API key as `Authorization: Bearer`, as `x-api-key` or as `api-key`. Every answer has an
`x-request-id`. Errors are `application/problem+json`, but on the endpoints of a vendor's format
they have that vendor's form. A field or query parameter that is not known is refused, never
ignored.
"""

TAGS = [
    {"name": "tasks", "description": "Work for an agent."},
    {"name": "artifacts", "description": "What an agent made of it."},
    {"name": "models", "description": "Model calls, in Anthropic's and OpenAI's formats."},
    {"name": "batches", "description": "Many calls of models, made when there is room."},
    {"name": "calls", "description": "What was said in calls, where a project keeps it."},
    {"name": "cache", "description": "Answers of models that are kept."},
    {"name": "approvals", "description": "Calls of tools that wait for somebody."},
    {"name": "capabilities", "description": "What agents can be given."},
    {"name": "managed agents", "description": "Anthropic's Managed Agents API, for its SDKs."},
    {
        "name": "files",
        "description": "Stored files. Without an `anthropic-` header they have OpenAI's shape.",
    },
    {"name": "usage", "description": "What was used and what it cost."},
    {"name": "jobs", "description": "A prompt in, its events out: the older form of a session."},
    {"name": "budgets", "description": "Limits on what may be spent."},
    {"name": "organization", "description": "Anthropic's Admin API, for its SDKs."},
    {"name": "keys", "description": "Who may use the server."},
    {"name": "sign-in", "description": "People, and the tokens that they get."},
    {"name": "clients", "description": "Organisations that have users of their own."},
    {"name": "audit", "description": "Who did what."},
    {"name": "server", "description": "How the server is."},
]

_REF = "#/components/schemas/{model}"
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"x-api-key": []}, {"api-key": []}]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def document(*apis: FastAPI) -> dict[str, Any]:
    """The whole document, of several apps that stand side by side."""
    routes = [route for api in apis for route in api.routes]
    made = get_openapi(
        title="Stationmaster",
        version=__version__,
        description=DESCRIPTION,
        routes=routes,
        tags=TAGS,
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for shape in (Problem, TaskRequest):  # of no route's own signature
        schema = shape.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[shape.__name__] = schema
    schemas.update(operations.SCHEMAS)
    made["components"]["securitySchemes"] = _SCHEMES
    guarded = {
        (route.path_format, method)
        for route in routes
        if isinstance(route, Guarded)
        for method in route.methods or ()
    }
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            _complete(operation, guarded=(path, method.upper()) in guarded)
    made["paths"].update(operations.paths(_SECURITY))
    return made


def _complete(operation: dict[str, Any], *, guarded: bool) -> None:
    answers = operation["responses"]
    if "422" in answers and MEDIA_TYPE not in answers["422"].get("content", {}):
        del answers["422"]  # FastAPI's own, of a form that is never sent
    if guarded:
        operation["security"] = _SECURITY
    operation["responses"] = dict(sorted(answers.items()))
