"""Every setting there is, and how the ones left out follow from the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr

from stationmaster.kernel.money import MicroDollars
from stationmaster.settings import forms
from stationmaster.settings.batches import BatchSettings
from stationmaster.settings.catalogue import CatalogueFile, read_catalogue
from stationmaster.settings.derivation import (
    check,
    credential_tokens,
    database_password,
    derive,
)
from stationmaster.settings.errors import SettingsError
from stationmaster.settings.field import setting, settings_of
from stationmaster.settings.forms import choice, duration, size, whole
from stationmaster.settings.loading import Loader
from stationmaster.settings.production import check_production

_SERVER = "Server"
_DATA = "Data"
_ACCESS = "Access"
_TASKS = "Tasks"
_AGENT = "Agents"
_LOGS = "Logs and metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(BatchSettings):
    """The operator's decisions. Durations are seconds, sizes bytes, money micro-dollars.

    Paths are absolute. Make one with `Settings.load`; nothing changes it later.
    """

    host: str = setting(
        _SERVER,
        forms.HOST,
        "127.0.0.1",
        "The address to listen on. Anything but a loopback address needs API_KEY_ENABLED.",
        aliases=("SERVER_HOST",),
    )
    port: int = setting(
        _SERVER,
        whole(0, 65535, noun="a port number"),
        "8080",
        "The port to listen on. 0 takes a free one and logs it.",
        aliases=("SERVER_PORT", "API_PORT"),
    )
    role: Literal["all", "api", "worker", "scheduler"] = setting(
        _SERVER,
        choice("all", "api", "worker", "scheduler"),
        "all",
        "all: everything in one process. api: HTTP alone. worker: agents, jobs and batches."
        " scheduler: periodic work, of which one at a time is at work. Servers of one installation"
        " share DATABASE_URL, SECRET_KEY and, at one path for all, DATA_DIR.",
    )
    worker_port: int = setting(
        _SERVER,
        whole(0, 65535, noun="a port number"),
        "8081",
        "Where a worker answers /live, /ready, /health and /metrics. 0 takes a free port.",
    )
    scheduler_port: int = setting(
        _SERVER,
        whole(0, 65535, noun="a port number"),
        "8082",
        "Where a scheduler answers /live, /ready, /health and /metrics. 0 takes a free port.",
    )
    rabbitmq_url: SecretStr | None = setting(
        _SERVER,
        forms.RABBITMQ_URL,
        None,
        "The RabbitMQ that tells workers of jobs, as amqp:// or amqps:// URL with its virtual host"
        " (%2F is the usual one). Without it REDIS_URL's Redis does, and without either, or while"
        " it is away, they look into the database.",
        secret=True,
    )
    rabbitmq_password: SecretStr | None = setting(
        _SERVER,
        forms.PASSWORD,
        None,
        "The password for RabbitMQ, where RABBITMQ_URL has none.",
        secret=True,
    )
    max_request_size: int = setting(
        _SERVER,
        size("1KB", "1GB"),
        "10MB",
        "The largest request body, except for uploads and for calls to a model (32 MB).",
    )
    max_upload_size: int = setting(
        _SERVER,
        size("1KB", "100GB"),
        "100MB",
        "The largest upload of files into a workspace, as sent and as unpacked.",
    )
    keepalive_interval: float = setting(
        _SERVER,
        duration("1s", "15s"),
        "10s",
        "How often a silent event stream sends a comment, so that no proxy closes it.",
    )
    websocket_max_connections: int = setting(
        _SERVER, whole(1, 100_000), "1000", "How many WebSockets may be open."
    )
    websocket_max_per_key: int = setting(
        _SERVER, whole(1, 100_000), "10", "How many WebSockets one key may have open."
    )
    ephemeral: bool = setting(
        _SERVER,
        forms.FLAG,
        "false",
        "Whether the server takes one job and ends, with 0 where that completed, else with 1. Have"
        " a supervisor start it anew. With ROLE all the job is one of its own, by /api/execute,"
        " /api/stream or /v1/task(s), or one that waits; meanwhile another one is refused with 429."
        " With ROLE worker it is the next one that waits.",
    )
    shutdown_timeout: float = setting(
        _SERVER,
        duration("0s", "1h"),
        "30s",
        "How long running tasks may go on after SIGTERM before they are interrupted.",
    )
    config_file: Path = setting(
        _SERVER,
        forms.PATH,
        "./config.yaml",
        "The configuration file. It may be absent, unless this names it.",
    )

    data_dir: Path = setting(
        _DATA,
        forms.PATH,
        "./data",
        "Where the server keeps what it must not lose. Made at the first start.",
    )
    workspace_dir: Path = setting(
        _DATA,
        forms.PATH,
        None,
        "Where the workspaces of agents are.",
        derived="DATA_DIR/workspaces",
    )
    transcript_max_size: int = setting(
        _DATA,
        size("1MB", "10GB"),
        "100MB",
        "How much of one agent's history is kept. A session that goes over it cannot go on.",
    )
    workspace_quota: int = setting(
        _DATA,
        size("1MB", "10TB"),
        "1GB",
        "How much one workspace may hold before its run is stopped.",
    )

    files_dir: Path = setting(
        _DATA,
        forms.PATH,
        None,
        "Where uploaded files are. Servers that share a database must share it.",
        derived="DATA_DIR/files",
    )
    files_quota: int = setting(
        _DATA,
        size("1MB", "1000TB"),
        "10GB",
        "How much the uploaded files of one project may take together.",
    )
    file_max_size: int = setting(
        _DATA, size("1KB", "100GB"), "500MB", "The largest file that may be uploaded."
    )

    api_key_enabled: bool = setting(
        _ACCESS,
        forms.FLAG,
        "true",
        "Whether a request needs an API key. Only a server on a loopback address may do without.",
    )
    api_key_disabled_anywhere: bool = setting(
        _ACCESS,
        forms.FLAG,
        "false",
        "API_KEY_ENABLED=false, said a second time: without it, it is refused on other addresses"
        " than loopback. Everybody who reaches the server may then do everything, run code too.",
    )
    admin_api_key: SecretStr | None = setting(
        _ACCESS,
        forms.KEY,
        None,
        "A key with every right. Left out, one is made and printed at the first start.",
        secret=True,
    )
    api_key: SecretStr | None = setting(
        _ACCESS, forms.KEY, None, "One key for users, as API_KEYS.", secret=True
    )
    api_keys: tuple[SecretStr, ...] | None = setting(
        _ACCESS,
        forms.KEYS,
        None,
        "Keys for users: they may use the server, not manage it.",
        secret=True,
    )
    secret_key: SecretStr | None = setting(
        _ACCESS,
        forms.KEY,
        None,
        "What stored hashes of keys depend on. Left out, one is made in DATA_DIR. Servers that "
        "share a database must share it; with another one, no stored key is valid.",
        aliases=("JWT_SECRET",),
        secret=True,
    )

    key_rotation_days: int = setting(
        _ACCESS,
        whole(0, 3650),
        "90",
        "After how many days a key that was made here gets a successor by itself; 0 is never. The"
        " first admin key and keys in these settings are left alone.",
    )
    key_rotation_overlap_days: int = setting(
        _ACCESS,
        whole(1, 365),
        "7",
        "How many days a key still works after it got a successor by itself.",
    )

    max_workers: int = setting(
        _TASKS, whole(1, 1000), "5", "How many runs go on at once. Each agent needs about 210 MB."
    )
    max_unanswered: int = setting(
        _TASKS,
        whole(0, 1000),
        None,
        "How many runs beside MAX_WORKERS may wait for an answer to their agent, which takes about"
        " 210 MB meanwhile. One more keeps its place among MAX_WORKERS while it waits.",
        derived="MAX_WORKERS",
    )
    max_queue: int = setting(
        _TASKS,
        whole(0, 100_000),
        None,
        "How many runs may wait. One more is refused with 503.",
        derived="10 times MAX_WORKERS",
    )
    queue_timeout: float = setting(
        _TASKS, duration("1s", "1d"), "300s", "How long a run may wait for its turn."
    )
    priority_ageing: float = setting(
        _TASKS,
        duration("1s", "1d"),
        "60s",
        "How long a run must have waited to be served as one of the next higher priority.",
    )
    task_timeout: float = setting(
        _TASKS, duration("1s", "1d"), "300s", "How long a task runs that names no timeout."
    )
    task_max_timeout: float = setting(
        _TASKS, duration("1s", "1d"), "600s", "The longest timeout that a task may ask for."
    )
    task_max_cost: MicroDollars = setting(
        _TASKS, forms.DOLLARS, "1.00", "What a task may cost that names no max_cost."
    )
    task_cost_limit: MicroDollars = setting(
        _TASKS, forms.DOLLARS, "10.00", "The highest max_cost that a task may ask for."
    )
    lease_time: float = setting(
        _TASKS,
        duration("1s", "10m"),
        "10s",
        "How long a worker keeps a run without a sign of life before another may take it over.",
    )

    work_lease_time: float = setting(
        _TASKS,
        duration("2s", "1h"),
        "60s",
        "How long a worker of a self-hosted environment keeps a session without a heartbeat.",
    )

    agent: Literal["claude_code", "scripted"] = setting(
        _AGENT,
        choice("claude_code", "scripted"),
        "claude_code",
        "What runs tasks. scripted plays a fixed script without a process, for trying the server.",
    )
    agent_first_event_timeout: float = setting(
        _AGENT, duration("1s", "1h"), "60s", "How long an agent may take to its first event."
    )
    agent_inactivity_timeout: float = setting(
        _AGENT, duration("1s", "1d"), "300s", "How long an agent may be silent."
    )
    approval_timeout: float = setting(
        _AGENT,
        duration("1s", "30d"),
        "1h",
        "How long a tool call waits for a person or a client; then it is denied.",
    )
    agent_memory: int = setting(
        _AGENT, size("256MB", "1TB"), "2GB", "Memory of one agent, all its processes together."
    )
    agent_processes: int = setting(
        _AGENT, whole(16, 100_000), "256", "Processes and threads of one agent."
    )
    agent_file_size: int = setting(
        _AGENT, size("1MB", "10TB"), "1GB", "The largest file that an agent may write."
    )
    agent_cpu_time: int = setting(
        _AGENT,
        forms.whole_seconds("1s", "30d"),
        "1h",
        "Processor time of each process of an agent.",
    )
    agent_pool_size: int = setting(
        _AGENT,
        whole(0, 100),
        "1",
        "How many agents of each kind in use wait warm for new sessions. Each takes about 210 MB.",
    )
    agent_pool_kinds: int = setting(
        _AGENT, whole(0, 100), "4", "How many kinds of agent, the last used ones, are kept warm."
    )
    agent_pool_idle_time: float = setting(
        _AGENT,
        duration("0s", "1d"),
        "5m",
        "How long a session's agent waits for the next message before its process is ended.",
    )
    agent_pool_unused_time: float = setting(
        _AGENT, duration("1s", "30d"), "10m", "How long a kind nobody asks for is kept warm."
    )
    agent_pool_memory: int = setting(
        _AGENT,
        size("0", "10TB"),
        "1GB",
        "What all waiting agents, warm and of sessions, may hold together.",
    )
    agent_uid_base: int = setting(
        _AGENT,
        whole(1000, 2_000_000_000),
        "64000",
        "The first user id for agents, where the server is root and bubblewrap cannot be used.",
    )
    sandbox: Literal["auto", "require", "off"] = setting(
        _AGENT,
        choice("auto", "require", "off"),
        "auto",
        "auto: the strongest that works here. require: bubblewrap, or no run at all. off: none.",
    )
    sandbox_readonly: tuple[Path, ...] = setting(
        _AGENT,
        forms.PATHS,
        "",
        "Directories outside /usr that agents may read, such as toolchains.",
    )
    skills_dir: Path | None = setting(
        _AGENT,
        forms.PATH,
        None,
        "Skills that agents may be given: a directory each, with a SKILL.md.",
    )
    mcp_servers_file: Path | None = setting(
        _AGENT,
        forms.PATH,
        None,
        "Tool servers that agents may be given: a JSON file with mcpServers, as Claude Code has "
        "them. No request can name another.",
    )
    claude_code_credentials_json: SecretStr | None = setting(
        _AGENT,
        forms.CREDENTIALS,
        None,
        'Claude Code credentials as JSON: {"apiKey": …} is used as ANTHROPIC_API_KEY where that is '
        'not set; {"claudeAiOauth": …} is a subscription login for its owner\'s own runs.',
        secret=True,
    )
    claude_code_credentials_secret: Path | None = setting(
        _AGENT,
        forms.PATH,
        None,
        "A file with such credentials. Wins over CLAUDE_CODE_CREDENTIALS_JSON.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = setting(
        _LOGS,
        forms.LOG_LEVEL,
        "info",
        "The least important lines to write: debug, info, warning or error.",
    )
    log_format: Literal["json", "console"] = setting(
        _LOGS, choice("json", "console"), "json", "json: one object a line. console: for people."
    )
    health_check_interval: float = setting(
        _LOGS,
        duration("1s", "1h"),
        "30s",
        "How often the server looks at its parts by itself, for the metric component_up and the"
        " log. /health, /ready, /db-check, /redis-check and /broker-check look when they are"
        " asked.",
    )
    metrics_enabled: bool = setting(
        _LOGS, forms.FLAG, "true", "Whether /metrics is served, for Prometheus."
    )

    subscription_login: SecretStr | None
    """The Claude Code subscription login that the credentials hold, as JSON."""
    read_catalogue: Callable[[], CatalogueFile] = field(repr=False, compare=False)
    """Read the providers and models of the configuration file again. Raises `SettingsError`."""
    catalogue: CatalogueFile
    """The providers and models of the configuration file."""

    @classmethod
    def load(cls, environ: Mapping[str, str], *, cwd: Path) -> Self:
        """Read the environment, then `.env` and `config.yaml` below `cwd`, then the defaults.

        Raises `SettingsError` with everything that is wrong.
        """
        settings = settings_of(cls)
        loader = Loader(settings, environ, cwd=cwd.absolute())
        values = {item.name.lower(): loader.read(item) for item in settings}
        if not loader.problems:
            derive(values, loader)
        if not loader.problems:
            check(values, loader)
            check_production(values, loader)
        if loader.problems:
            raise SettingsError(tuple(loader.problems))
        values["read_catalogue"] = partial(read_catalogue, loader.config_path, dict(environ))
        values["catalogue"] = values["read_catalogue"]()
        return cls(**values)

    @property
    def on_sqlite(self) -> bool:
        """Whether the database is a file of this machine's, and not a PostgreSQL server."""
        return self.database_url.get_secret_value().startswith("sqlite")

    @property
    def user_keys(self) -> tuple[SecretStr, ...]:
        """API_KEY and API_KEYS together, each once."""
        given = (*([self.api_key] if self.api_key else []), *(self.api_keys or ()))
        return tuple({key.get_secret_value(): key for key in given}.values())

    def secrets(self) -> tuple[str, ...]:
        """Every secret value and what is secret inside of it, for the log's redaction."""
        named = [
            getattr(self, item.name.lower()) for item in settings_of(type(self)) if item.secret
        ]
        lists = (*(self.api_keys or ()), *(self.encryption_keys or ()))
        found = [*named, *lists, self.subscription_login]
        return (
            *self.catalogue.secrets,
            *(item.get_secret_value() for item in found if isinstance(item, SecretStr)),
            *database_password(self.database_url),
            *(database_password(self.database_replica_url) if self.database_replica_url else ()),
            *(database_password(self.redis_url) if self.redis_url else ()),
            *(database_password(self.rabbitmq_url) if self.rabbitmq_url else ()),
            *credential_tokens(self.claude_code_credentials_json),
            *credential_tokens(self.subscription_login),
        )
