"""`stationmaster run`: the command line of a task; `job` carries it out."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.job import Job, carry_out
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of

_Prompt = Annotated[str, typer.Argument(help="What the agent is to do; - reads it from stdin.")]
_Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="PATH", help="Send this directory along, as git sees it."),
]
_Apply = Annotated[
    bool, typer.Option("--apply", help="Do to --dir what a completed task did to its copy.")
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="PATH", help="Write the changed files and a diff here."),
]
_Model = Annotated[str | None, typer.Option("--model", metavar="NAME")]
_Tools = Annotated[
    str | None,
    typer.Option(
        "--tools", metavar="NAMES", help="Only these tools, with commas; '' is none at all."
    ),
]
_Agents = Annotated[
    str | None, typer.Option("--agents", metavar="NAMES", help="Sub-agents, with commas.")
]
_Skills = Annotated[
    str | None, typer.Option("--skills", metavar="NAMES", help="Skills, with commas.")
]
_McpServers = Annotated[
    str | None, typer.Option("--mcp-servers", metavar="NAMES", help="Tool servers, with commas.")
]
_Tags = Annotated[
    str | None,
    typer.Option("--tags", metavar="NAMES", help="What it is counted under, with commas."),
]
_Priority = Annotated[
    str | None,
    typer.Option("--priority", help="low, normal, or high where the key may: served sooner."),
]
_MaxTurns = Annotated[int | None, typer.Option("--max-turns", min=1)]
_MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0, metavar="USD", help="Stop before it costs more."),
]
_Timeout = Annotated[
    float | None, typer.Option("--timeout", min=1, metavar="SECONDS", help="Stop after this time.")
]
_SystemPrompt = Annotated[str | None, typer.Option("--system-prompt", metavar="TEXT")]
_PermissionMode = Annotated[
    str | None,
    typer.Option("--permission-mode", help="default, acceptEdits, bypassPermissions or plan."),
]
_Workspace = Annotated[
    str | None, typer.Option("--workspace", metavar="NAME", help="Work in a shared workspace.")
]
_Detach = Annotated[
    bool, typer.Option("--detach", help="Print the task's id and leave it to the server.")
]
_DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="PATH",
        help="Without a server: keep the book here. Otherwise nothing is kept.",
    ),
]


def run(
    context: typer.Context,
    prompt: _Prompt,
    *,
    directory: _Directory = None,
    apply: _Apply = False,
    out: _Out = None,
    model: _Model = None,
    tools: _Tools = None,
    agents: _Agents = None,
    skills: _Skills = None,
    mcp_servers: _McpServers = None,
    tags: _Tags = None,
    priority: _Priority = None,
    max_turns: _MaxTurns = None,
    max_cost: _MaxCost = None,
    timeout: _Timeout = None,
    system_prompt: _SystemPrompt = None,
    permission_mode: _PermissionMode = None,
    workspace: _Workspace = None,
    detach: _Detach = False,
    data_dir: _DataDir = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Run a task and watch it. Ctrl-C cancels it.

    With --url or STATIONMASTER_URL it runs on that server. Otherwise a server at the default
    address is used if there is a key for it, and if not, one is started for this task alone.
    """
    from stationmaster.client import TaskOptions

    if apply and directory is None:
        raise CommandError("--apply needs --dir: there is nothing to apply to.", Exit.USAGE)
    if detach and (apply or out is not None):
        raise CommandError("--detach leaves before there is anything to bring back.", Exit.USAGE)
    shared = shared_of(context)
    job = Job(
        prompt=sys.stdin.read() if prompt == "-" else prompt,
        options=TaskOptions(
            model=model,
            allow_tools=_split(tools),
            allow_agents=_split(agents),
            allow_skills=_split(skills),
            mcp_servers=_split(mcp_servers),
            tags=_split(tags),
            priority=priority,
            system_prompt=system_prompt,
            max_turns=max_turns,
            max_cost=max_cost,
            timeout=timeout,
            permission_mode=permission_mode,
            workspace=workspace,
        ),
        target=shared.target(url, key_file),
        data_dir=data_dir,
        directory=directory,
        out=out,
        apply=apply,
        detach=detach,
        json=shared.json(output),
    )
    raise typer.Exit(int(asyncio.run(carry_out(job))))


def _split(names: str | None) -> list[str] | None:
    if names is None:
        return None
    return [name for word in names.split(",") if (name := word.strip())]
