"""How to use a database server."""

from typing import TypedDict


class ServerOptions(TypedDict, total=False):
    """How to use a server. Times in seconds.

    `pool_size` (20) connections are kept, `max_overflow` (30) more made while they are needed.
    They are replaced when `recycle` (1 h) old, and with `pre_ping` (no) asked before each use
    whether they live. `echo` (no) logs each statement, without its values. A statement that takes
    longer than `statement_timeout` (30 s) is given up. `pooled` (no): as `Survey` has it.
    """

    pool_size: int
    max_overflow: int
    recycle: float
    pre_ping: bool
    echo: bool
    statement_timeout: float
    pooled: bool
