"""An agent without a process, which plays a script: for tests, and as a second implementation."""

from stationmaster.agents.scripted.agent import ScriptedAgent
from stationmaster.agents.scripted.script import (
    Call,
    Delegate,
    Fail,
    Finish,
    Output,
    Say,
    Script,
    Step,
    Think,
    UseTool,
    WaitFor,
    WriteFile,
)

__all__ = [
    "Call",
    "Delegate",
    "Fail",
    "Finish",
    "Output",
    "Say",
    "Script",
    "ScriptedAgent",
    "Step",
    "Think",
    "UseTool",
    "WaitFor",
    "WriteFile",
]
