"""Run Claude Code and language models as one production service."""

__version__ = "0.1.0"
