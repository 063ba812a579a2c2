"""PostgreSQL and Redis of a benchmark's own, for servers that share them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.programs import MissingProgramError, require
from tests.support.postgres import find_programs, private_server
from tests.support.redis import private_redis

_SECRET = "one-secret-for-all-servers-of-this-benchmark"


@dataclass(frozen=True, slots=True)
class Shared:
    """What servers of one cluster have in common. `place` is a directory, gone at the end."""

    place: Path
    env: dict[str, str]
    redis: str


@contextmanager
def shared(name: str) -> Iterator[Shared]:
    """Start both, as durable as in production. Raises `MissingProgramError`."""
    programs = find_programs()
    if programs is None or shutil.which("redis-server") is None:
        raise MissingProgramError(
            "postgresql or redis is missing; scripts/install-test-services installs it"
        )
    require("setpriv")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{name}-")))
        postgres = stack.enter_context(private_server(programs, durable=True))
        redis = stack.enter_context(private_redis())
        env = {
            "DATABASE_URL": postgres.url(postgres.create()),
            "REDIS_URL": redis.url,
            "SECRET_KEY": _SECRET,
            "DATA_DIR": str(place / "data"),
        }
        yield Shared(place, env, redis.url)
