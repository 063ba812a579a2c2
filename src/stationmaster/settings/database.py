"""The settings of the database. `Settings` has them among its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from stationmaster.settings import forms
from stationmaster.settings.field import setting
from stationmaster.settings.forms import choice, duration, whole
from stationmaster.settings.models import ModelSettings

_DATABASE = "Database"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings(ModelSettings):
    """Where the database is, and how it is used."""

    database_url: SecretStr = setting(
        _DATABASE,
        forms.DATABASE_URL,
        None,
        "The database, as postgresql:// or sqlite:/// URL. Wins over DATABASE_PATH.",
        derived="SQLite at DATABASE_PATH",
        secret=True,
    )
    database_path: Path = setting(
        _DATABASE,
        forms.PATH,
        None,
        "The SQLite file.",
        derived="DATA_DIR/stationmaster.db",
    )
    database_replica_url: SecretStr | None = setting(
        _DATABASE,
        forms.REPLICA_URL,
        None,
        "A standby of the PostgreSQL server that DATABASE_URL names. Lists and reports are read"
        " from it while it is fresh enough, else from DATABASE_URL.",
        secret=True,
    )
    database_replica_staleness: float = setting(
        _DATABASE,
        duration("100ms", "1h"),
        "5s",
        "How old what is read from DATABASE_REPLICA_URL may be.",
    )
    database_pool_size: int = setting(
        _DATABASE, whole(1, 1000), "20", "Connections to PostgreSQL that are kept open."
    )
    database_max_overflow: int = setting(
        _DATABASE,
        whole(0, 1000),
        "30",
        "Connections to PostgreSQL beyond those, while they are needed.",
    )
    database_pool_recycle: float = setting(
        _DATABASE,
        duration("1s", "30d"),
        "1h",
        "How old a connection to PostgreSQL may become before another takes its place.",
    )
    database_pool_pre_ping: bool = setting(
        _DATABASE,
        forms.FLAG,
        "false",
        "Whether a connection to PostgreSQL is tried before each use. Without it one that has died"
        " is found at its use, and the work done on another: nothing fails, and it costs less.",
    )
    database_statement_timeout: float = setting(
        _DATABASE,
        duration("1s", "1h"),
        "30s",
        "How long one statement may take on PostgreSQL before it is given up.",
    )
    database_echo: bool = setting(
        _DATABASE,
        forms.FLAG,
        "false",
        "Whether to log every statement sent to PostgreSQL, without its values.",
    )
    sqlite_synchronous: Literal["FULL", "NORMAL"] = setting(
        _DATABASE,
        choice("FULL", "NORMAL"),
        "FULL",
        "FULL: what was answered survives a power cut. NORMAL: it survives a crash of the server.",
    )
