"""Tools that a worker of a self-hosted environment runs, in place of the agent's own.

To the agent they are tools of the client's, under the API's names: what it calls goes into the book
and its result comes from there. The schemas are those of the worker that Anthropic's SDKs bring.
"""

from collections.abc import Collection
from typing import Any

from stationmaster.agents.base import CustomTool
from stationmaster.kernel.errors import Conflict
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.environments import find_environment
from stationmaster.sessions.session import Session, SessionRequest
from stationmaster.sessions.toolset import API_NAMES, custom_tools_of, tools_of, unsupported
from stationmaster.storage import Transaction


def _tool(name: str, description: str, required: Collection[str], **fields: Any) -> CustomTool:
    schema = {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }
    return CustomTool(name, description, schema)


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


_PATH = _text("The file's path, absolute or relative to the working directory.")
_WHERE = _text("Where to look: a path as above. The working directory, where it is left out.")

TOOLS = {
    tool.name: tool
    for tool in (
        _tool(
            "bash",
            "Runs a command in a bash shell that stays: its working directory, variables and"
            " functions are there for the next command. Returns what it has written; a command"
            " that fails is an error.",
            (),
            command=_text("The command."),
            restart={"type": "boolean", "description": "Begin with a new shell instead."},
            timeout_ms={"type": "integer", "description": "How long it may take; 120000 usually."},
        ),
        _tool(
            "read",
            "Reads a file. Text is returned as it is, an image or a PDF to be looked at.",
            ("file_path",),
            file_path=_PATH,
            view_range={
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 2,
                "maxItems": 2,
                "description": "The first and the last line, from 1; -1 is the last of the file."
                " A file of more than 256 KB needs it.",
            },
        ),
        _tool(
            "write",
            "Writes a file, over one that is there, and makes the directories that it needs.",
            ("file_path", "content"),
            file_path=_PATH,
            content=_text("All of the file."),
        ),
        _tool(
            "edit",
            "Replaces a text in a file. It must be there exactly as given, and only once unless"
            " every one is to be replaced. Read the file before.",
            ("file_path", "old_string", "new_string"),
            file_path=_PATH,
            old_string=_text("What is there."),
            new_string=_text("What is to be there."),
            replace_all={"type": "boolean", "description": "Replace every one."},
        ),
        _tool(
            "glob",
            "Lists files by a pattern such as `src/**/*.py`, the newest first.",
            ("pattern",),
            pattern=_text("The pattern, relative to where it looks."),
            path=_WHERE,
        ),
        _tool(
            "grep",
            "Searches files for a regular expression; returns each line with its file and number.",
            ("pattern",),
            pattern=_text("The regular expression."),
            path=_WHERE,
        ),
    )
}


def is_forwarded(kind: str, name: str) -> bool:
    """Whether a call is of one of these: a client's own tool cannot have such a name."""
    return kind == "custom" and name in TOOLS


def forwarded_of(agent: dict[str, Any], offered: frozenset[str]) -> tuple[CustomTool, ...]:
    """Those that a snapshot enables."""
    names = (API_NAMES[own] for own in tools_of(agent, offered))
    return tuple(TOOLS[name] for name in names if name in TOOLS)


def kit_of(
    session: Session, agent: dict[str, Any], offered: frozenset[str]
) -> tuple[tuple[str, ...], tuple[CustomTool, ...]]:
    """The tools that an agent has: its own, and those that are run elsewhere."""
    custom = custom_tools_of(agent)
    if not session.self_hosted:
        return tools_of(agent, offered), custom
    return (), (*forwarded_of(agent, offered), *custom)


def names_of(session: Session, agent: dict[str, Any], offered: frozenset[str]) -> tuple[str, ...]:
    """The names of the tools that a sub-agent has of the agent's."""
    if not session.self_hosted:
        return tools_of(agent, offered)
    return tuple(tool.name for tool in forwarded_of(agent, offered))


def check_place(
    tx: Transaction, principal: Principal, request: SessionRequest, agent: dict[str, Any]
) -> bool:
    """Whether a new session's environment is self-hosted.

    Raises `NotFound` and `Conflict` for an environment that takes none, `Invalid` for what a worker
    could not be given.
    """
    if request.environment_id is None:
        return False
    environment = find_environment(tx, principal.owner, request.environment_id)
    if environment.archived_at is not None:
        raise Conflict("The environment is archived.", code="environment_archived")
    if not environment.self_hosted:
        return False
    if request.resources:
        raise unsupported("resources of a session in a self-hosted environment")
    if agent["skills"]:
        raise unsupported("an agent with skills in a self-hosted environment")
    return True
