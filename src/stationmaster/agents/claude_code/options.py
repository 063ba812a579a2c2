"""What the CLI is told over its control protocol when it starts, rather than as arguments."""

from collections.abc import Sequence
from typing import cast

from claude_agent_sdk import AgentDefinition, ClaudeAgentOptions, HookMatcher, SessionStore
from claude_agent_sdk.types import McpSdkServerConfig, McpServerConfig

from stationmaster.agents.admission import CUSTOM_SERVER
from stationmaster.agents.base import LaunchSpec, SubAgent
from stationmaster.agents.claude_code.desk import Desk
from stationmaster.agents.claude_code.history import Mirror
from stationmaster.agents.claude_code.remote import Remote

# The CLI gives up on a hook after a minute unless told otherwise. A person may take days.
_HOOK_SECONDS = 2_000_000.0


Served = dict[str, McpServerConfig]


def served(spec: LaunchSpec, desk: Desk, remotes: Sequence[Remote]) -> Served:
    """The tool servers that are here and not with the CLI."""
    servers = {remote.name: remote.served() for remote in remotes}
    if spec.custom_tools:
        servers[CUSTOM_SERVER] = desk.server()
    return {
        name: McpSdkServerConfig(type="sdk", name=name, instance=server)
        for name, server in servers.items()
    }


def client_options(
    spec: LaunchSpec, desk: Desk, servers: Served, mirror: Mirror | None
) -> ClaudeAgentOptions:
    """The SDK's options. Those that it makes into arguments have no effect over our transport.

    What is taken out of `servers` before the SDK connects has failed, to the CLI.
    """
    options = ClaudeAgentOptions(verbatim_prompts=True)
    if spec.gated or spec.custom_tools:
        # Without a matcher it is called for every tool, and a hook that fails blocks.
        hook = HookMatcher(
            matcher=None, hooks=[desk.before_tool], timeout=_HOOK_SECONDS, on_failure="block"
        )
        options.hooks = {"PreToolUse": [hook]}
    options.mcp_servers = servers
    if spec.sub_agents:
        options.agents = {agent.name: _definition(agent) for agent in spec.sub_agents}
        options.forward_subagent_text = True
    if mirror is not None:
        options.session_store = cast("SessionStore", mirror)
        options.session_store_flush = "eager"
        # Where the CLI writes: the SDK knows a history by its file.
        options.env = {"CLAUDE_CONFIG_DIR": str(spec.home / ".claude")}
    return options


def _definition(agent: SubAgent) -> AgentDefinition:
    return AgentDefinition(
        description=agent.description,
        prompt=agent.prompt,
        tools=None if agent.tools is None else list(agent.tools),
        model=agent.model,
    )
