"""Agents: programs that work in a workspace, call models through the gateway, and report events."""
