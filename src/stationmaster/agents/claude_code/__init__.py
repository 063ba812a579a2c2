"""The real Claude Code: the CLI that claude-agent-sdk brings, in a sandbox of ours."""

from stationmaster.agents.claude_code.agent import ClaudeCodeAgent, OwnLogin
from stationmaster.agents.claude_code.egress import EgressProxy
from stationmaster.agents.claude_code.login import SubscriptionLogin
from stationmaster.agents.claude_code.probe import Probe

__all__ = ["ClaudeCodeAgent", "EgressProxy", "OwnLogin", "Probe", "SubscriptionLogin"]
