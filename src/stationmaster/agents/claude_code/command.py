"""What the CLI is told: its arguments and its environment. Nothing here is secret but the token."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.claude_code.outfit import Outfit
from stationmaster.agents.claude_code.sandbox import INSIDE_PORT, INSIDE_TMP, SYSTEM_PATH
from stationmaster.kernel.errors import Invalid

DEFAULT_TOOLS = (
    "Bash",
    "Edit",
    "Glob",
    "Grep",
    "NotebookEdit",
    "Read",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskUpdate",
    "Write",
)
KNOWN_TOOLS = frozenset(DEFAULT_TOOLS) | {"WebFetch", "WebSearch"}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_MAX_RETRIES = 4
# A person may take days to answer; what bounds the waiting is the run's own time.
_LONGEST_MS = 2**31 - 1
_LEAST_DOLLARS = 0.000001

# The CLI then makes no calls but those of the model, and measured 0.05 s less to a result.
_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_BUG_COMMAND": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}


def arguments(spec: LaunchSpec, outfit: Outfit | None = None) -> list[str]:
    """The CLI's arguments. A value that may begin with a dash stands behind `--flag=`.

    What may be long or secret comes from files: an argument is visible to everyone and bounded in
    size. `spec` has been admitted.
    """
    words = [
        *("--output-format=stream-json", "--input-format=stream-json", "--verbose"),
        "--include-partial-messages",
        # Settings in an untrusted workspace could run commands before anything is asked.
        *("--setting-sources=", "--strict-mcp-config"),
        f"--permission-mode={spec.permission_mode}",
        f"--model={spec.model}",
        # Restricts; --allowedTools would only approve without asking.
        f"--tools={','.join(_tools(spec))}",
    ]
    outfit = outfit or Outfit()
    if outfit.prompt is not None:
        words.append(f"--append-system-prompt-file={outfit.prompt}")
    if outfit.tool_servers is not None:
        words.append(f"--mcp-config={outfit.tool_servers}")
    if outfit.plugin is not None:
        words.append(f"--plugin-dir={outfit.plugin}")
    if spec.max_turns is not None:
        words.append(f"--max-turns={spec.max_turns:d}")
    if spec.max_cost_usd is not None:
        # It refuses zero; its smallest amount stops it after the first call.
        words.append(f"--max-budget-usd={max(spec.max_cost_usd, _LEAST_DOLLARS):.6f}")
    if spec.output_schema is not None:
        words.append(f"--json-schema={json.dumps(spec.output_schema)}")
    return words + _history(spec)


def _tools(spec: LaunchSpec) -> list[str]:
    tools = list(DEFAULT_TOOLS if spec.tools is None else spec.tools)
    if spec.sub_agents:
        tools.append("Task")
    if spec.skills:
        tools.append("Skill")
    return tools


def _history(spec: LaunchSpec) -> list[str]:
    words = [] if spec.transcripts is None else ["--session-mirror"]
    if spec.resume is None:
        own = [] if spec.agent_session_id is None else [f"--session-id={spec.agent_session_id}"]
        return words + own
    words.append(f"--resume={spec.resume}")
    # Else the prompt of the first launch would go on to be used, whatever this one says.
    words.append("--system-prompt-snapshot=off")
    if spec.agent_session_id not in {None, spec.resume}:
        words += ["--fork-session", f"--session-id={spec.agent_session_id}"]
    if spec.resume_at is not None:
        words.append(f"--resume-session-at={spec.resume_at}")
    return words


def environment(
    spec: LaunchSpec, *, boxed: bool, root: bool, path: str = SYSTEM_PATH
) -> dict[str, str]:
    """The CLI's whole environment. `boxed` means an own network and an own /tmp.

    `root` says that it will run as root, which it refuses unless told that it is confined.
    """
    for name, value in spec.add_env.items():
        if _NAME.fullmatch(name) is None or "\0" in value:
            raise Invalid("This is not a variable for an environment.", param="env")
    temporary = INSIDE_TMP if boxed else str(spec.home / "tmp")
    env = {
        **spec.add_env,
        **_QUIET,
        "PATH": path,
        "HOME": str(spec.home),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "SHELL": "/bin/bash",
        "TMPDIR": temporary,
        "CLAUDE_CODE_TMPDIR": temporary,
        "CLAUDE_CONFIG_DIR": str(spec.home / ".claude"),
        "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
        # A command that runs on after the turn would outlive the run that pays for it.
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        # The operator's skills and the definition's sub-agents are all there are, and these give
        # no work on.
        "CLAUDE_CODE_DISABLE_BUNDLED_SKILLS": "1",
        "CLAUDE_AGENT_SDK_DISABLE_BUILTIN_AGENTS": "1",
        "CLAUDE_CODE_MAX_SUBAGENT_SPAWN_DEPTH": "1",
        # Custom tools keep the names that the client gave them, and wait for it.
        "CLAUDE_AGENT_SDK_MCP_NO_PREFIX": "1",
        "MCP_TOOL_TIMEOUT": str(_LONGEST_MS),
        "CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS": "0",
        # A tool server must not find the run token in its environment.
        "CLAUDE_CODE_MCP_ALLOWLIST_ENV": "1",
        # The gateway retries as well; the CLI's ten tries would hold a slot for minutes.
        "CLAUDE_CODE_MAX_RETRIES": str(_MAX_RETRIES),
        **_way_out(spec, boxed=boxed),
    }
    if root:
        env["IS_SANDBOX"] = "1"
    return env


def _way_out(spec: LaunchSpec, *, boxed: bool) -> dict[str, str]:
    if spec.own_login:
        # The forwarder leads to the egress proxy; the login itself is a file in its home.
        return {"HTTPS_PROXY": f"http://127.0.0.1:{INSIDE_PORT}"}
    return {
        "ANTHROPIC_BASE_URL": inside_url(spec.gateway_url) if boxed else spec.gateway_url,
        "ANTHROPIC_AUTH_TOKEN": spec.token,
    }


def inside_url(gateway_url: str) -> str:
    """The gateway's address inside the sandbox: the forwarder's port, the same path."""
    return urlunsplit(("http", f"127.0.0.1:{INSIDE_PORT}", urlsplit(gateway_url).path, "", ""))


def search_path(readonly: tuple[Path, ...]) -> str:
    """PATH with the `bin` of each of the operator's toolchains in front of the system's."""
    own = [str(path / "bin") for path in readonly if (path / "bin").is_dir()]
    return ":".join([*own, SYSTEM_PATH])
