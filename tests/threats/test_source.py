"""Flaws that can be seen in the text of the source, whichever route would reach them."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

from stationmaster.settings import Settings
from stationmaster.settings.field import settings_of
from tests.architecture.sources import Module, modules


@cache
def calls_of() -> Mapping[str, list[tuple[Module, ast.Call]]]:
    """Every call in the source, by the name of the function or method."""
    found: dict[str, list[tuple[Module, ast.Call]]] = defaultdict(list)
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                found[called(node)].append((module, node))
    return found


def calls(*names: str) -> Iterator[tuple[Module, ast.Call]]:
    """Every call of a function or method of one of these names."""
    return (each for name in names for each in calls_of().get(name, ()))


def called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def at(module: Module, node: ast.expr) -> str:
    return f"{module.name} line {node.lineno}: {ast.unparse(node)[:80]}"


# --- SQL --------------------------------------------------------------------------------------

SQL = ("text", "exec_driver_sql", "literal_column", "execute", "executemany", "raw")
# Names in them are constants and settings of a few words, and SQLite binds nothing in a PRAGMA.
PRAGMAS = re.compile(r"PRAGMA (busy_timeout|synchronous) = \{\w+\}")
# Names of the schema's own tables and columns, which cannot be bound; all values are.
OF_OUR_NAMES = {"migrations.copying"}


def test_no_statement_is_put_together_of_strings() -> None:
    """Statements are SQLAlchemy's expressions, or constants: what a caller sent is always bound."""
    found = [
        at(module, node)
        for module, node in calls(*SQL)
        if node.args and module.name not in OF_OUR_NAMES
        if isinstance(node.args[0], ast.JoinedStr | ast.BinOp) or _formatted(node.args[0])
        if not PRAGMAS.fullmatch(ast.unparse(node.args[0])[2:-1])
    ]
    assert found == []


def _formatted(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    of_text = isinstance(node.func.value, ast.Constant | ast.JoinedStr)
    return node.func.attr in {"format", "join", "replace"} and of_text


def test_patterns_for_like_escape_what_a_caller_wrote() -> None:
    """A `%` of a caller's would match everything, and be searched for a long time."""
    found = [
        at(module, node)
        for module, node in calls("like", "ilike", "icontains", "istartswith", "regexp_match")
    ]
    of_columns = [
        at(module, node)
        for module, node in calls("startswith", "contains", "endswith")
        if isinstance(node.func, ast.Attribute)
        if re.search(r"(\.c|columns|\w+_table)\.\w+$", ast.unparse(node.func.value))
        if not any(keyword.arg == "autoescape" for keyword in node.keywords)
    ]
    assert found + of_columns == []


# --- requests ---------------------------------------------------------------------------------


def test_nothing_is_decided_by_the_url_that_a_host_header_makes() -> None:
    """Starlette's `request.url` is made of the Host header: its path may not be the routed one."""
    found = [
        f"{module.name} line {node.lineno}"
        for module in modules()
        if module.capability == "http"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in {"url", "base_url", "url_for"}
        if ast.unparse(node.value).split(".")[-1] in {"request", "socket", "websocket", "req"}
    ]
    assert found == []


def test_no_file_is_served_by_a_parser_of_ranges() -> None:
    found = [
        f"{module.name} imports {name}"
        for module in modules()
        for name in module.imports()
        if name.rpartition(".")[2] in {"FileResponse", "StaticFiles"}
    ]
    assert found == []


# --- processes --------------------------------------------------------------------------------

STARTS = (
    "create_subprocess_exec",
    "create_subprocess_shell",
    "Popen",
    "system",
    "popen",
    "execv",
    "execve",
    "execvp",
    "posix_spawn",
    "check_output",
    "check_call",
)
STARTERS = {
    "agents.claude_code.launcher": "the agent, by command.arguments alone",
    "agents.claude_code.sentinel": "what ends the agent with its server, a fixed command before it",
    "agents.claude_code.probe": "whether the sandbox works, a fixed command",
    "cli.checks": "doctor, on the operator's own machine",
    "cli.demo.server": "the demo's server",
    "cli.directory": "git, in the caller's own directory",
}


def test_few_places_start_a_process_and_none_by_a_shell() -> None:
    found = {module.name for module, _ in calls(*STARTS)}
    found |= {
        module.name
        for module, node in calls("run")
        if ast.unparse(node.func) in {"subprocess.run", "run"}
        if any(keyword.arg in {"check", "shell", "capture_output"} for keyword in node.keywords)
    }
    assert found - set(STARTERS) == set()
    shells = [
        at(module, node)
        for module, node in calls("create_subprocess_shell", "system", "popen", "Popen", "run")
        if called(node) in {"create_subprocess_shell", "system", "popen"}
        or any(keyword.arg == "shell" for keyword in node.keywords)
    ]
    assert shells == []


def test_no_text_becomes_code_or_an_object() -> None:
    """No `eval`, no pickle, no YAML that makes objects."""
    found = [
        at(module, node)
        for module, node in calls("eval", "exec", "__import__", "unsafe_load", "full_load")
        if called(node) != "exec" or isinstance(node.func, ast.Name)
    ]
    found += [
        at(module, node)
        for module, node in calls("load", "load_all")
        if ast.unparse(node.func) in {"yaml.load", "yaml.load_all"}
    ]
    unsafe = {"pickle", "marshal", "shelve", "dill", "jsonpickle"}
    found += [
        f"{module.name} imports {name}"
        for module in modules()
        for name in module.imports()
        if name.partition(".")[0] in unsafe
    ]
    assert found == []


# --- secrets ----------------------------------------------------------------------------------

SECRET_WORDS = re.compile(
    r"(^|_)(secret|digest|password|signature|mac|hmac|nonce|verifier|pepper|api_key|token|seal)$"
)
KNOWN_COMPARISONS = {
    # The last characters of a key are a checksum that anybody can make: no secret is behind it.
    "access.secret: secret[-CHECK_LENGTH:] == _check(secret[:-CHECK_LENGTH])",
    # Whether the token that a provider refused is the one still kept: nobody sends it to us.
    "providers.vertex.token: token == self._token",
}


def test_secrets_are_compared_in_constant_time() -> None:
    """How long `==` takes tells how much of a secret was right. Lookups are by keyed hash."""
    found = {
        f"{module.name}: {ast.unparse(node)}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare)
        if any(isinstance(sign, ast.Eq | ast.NotEq) for sign in node.ops)
        if any(_secret(side) for side in (node.left, *node.comparators))
        if not any(_known_or_column(side) for side in (node.left, *node.comparators))
    }
    assert found - KNOWN_COMPARISONS == set()
    assert found >= KNOWN_COMPARISONS  # else the line above is out of use


def _known_or_column(node: ast.expr) -> bool:
    """A constant; or a column of a query, which the database compares, over keyed hashes."""
    return isinstance(node, ast.Constant) or re.search(r"\.c\.\w+$", ast.unparse(node)) is not None


def _secret(node: ast.expr) -> bool:
    while isinstance(node, ast.Subscript | ast.Call | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Attribute):
        return SECRET_WORDS.search(node.attr) is not None
    return isinstance(node, ast.Name) and SECRET_WORDS.search(node.id) is not None


def test_what_must_not_be_guessed_is_not_made_by_a_guessable_generator() -> None:
    users = {
        module.name
        for module in modules()
        for name in module.imports()
        if name == "random" or name.startswith("random.")
    }
    assert users <= {"client.retry", "jobs.broker", "live.redis"}  # a pause between tries


def test_no_setting_that_is_a_secret_has_a_default() -> None:
    secrets = [item for item in settings_of(Settings) if item.secret]
    assert {"SECRET_KEY", "ADMIN_API_KEY", "API_KEYS", "ENCRYPTION_KEYS"} <= {
        item.name for item in secrets
    }
    assert [item.name for item in secrets if item.default] == []
