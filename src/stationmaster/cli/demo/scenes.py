"""The five scenes of the demo. Each says what it shows and checks that it does."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from stationmaster.cli.demo.server import DemoServer, all_gone, demo_server
from stationmaster.cli.demo.stage import Failed, Stage
from stationmaster.cli.printing import dollars
from stationmaster.client import Client, ClientError, TaskEvent, TaskOptions

FIRST = "Write a small program that prints the first 12 prime numbers, and run it."
SECOND = "Write a program that prints the first 20 Fibonacci numbers, and run it."
THIRD = "Write a program that counts the words of a poem and prints them as CSV, and run it."
TINY_BUDGET = 0.05  # US dollars: enough for the beginning of the second task, not for all of it
RECOVERY_S = 30.0


def play() -> str:
    """Play every scene; return what failed, the empty string where nothing did."""
    stage = Stage()
    with tempfile.TemporaryDirectory(
        prefix="stationmaster-demo-", ignore_cleanup_errors=True
    ) as directory:
        try:
            with demo_server(Path(directory).resolve()) as server:
                _play(stage, server)
        except Failed as failed:
            return str(failed)
    _farewell(stage)
    return ""


def _play(stage: Stage, server: DemoServer) -> None:
    scenes: tuple[Callable[[Stage, DemoServer], None], ...] = (
        _start,
        _work,
        _budget,
        _crash,
        _stop,
    )
    for scene in scenes:
        try:
            scene(stage, server)
        except ClientError as error:
            raise Failed(f"{error} The server's last words: {server.last_words()}") from error


def _start(stage: Stage, server: DemoServer) -> None:
    stage.title("1. A server starts, with nothing configured")
    stage.command("stationmaster serve")
    for line in server.start().strip().splitlines():
        stage.say(f"  {line}")
    stage.say("")
    stage.say(
        "No account is used here: the model's answers come from a built-in script, not from a"
        " language model. Claude Code, the sandbox, the files, the programs that run, the ledger"
        " and the crash are real.",
        "yellow",
    )
    with server.client() as client:
        health = client.health()
    stage.check(health.get("status") == "ok", "GET /health says ok")


def _work(stage: Stage, server: DemoServer) -> None:
    stage.title("2. Claude Code takes a task")
    stage.command(f'stationmaster run "{FIRST}"')
    with server.client() as client:
        task = stage.watch(client, client.submit(FIRST, TaskOptions(max_cost=1.0)))
        stage.check(task.status == "completed", "the task completed")
        made = [item.path for item in client.artifacts(task.id)]
        stage.check(any(path.endswith(".py") for path in made), f"it wrote {', '.join(made)}")
        steps = str([event.data for event in client.events(task.id, limit=100).events])
        stage.check("2 3 5 7 11" in steps, "the program ran: its output has the prime numbers")

        stage.title("3. What it cost, in the ledger")
        stage.command("stationmaster usage")
        usage = client.usage("day")
        for name, part in (usage.get("by_model") or {}).items():
            stage.say(f"  {name}: {part['tokens']:,} tokens, {dollars(part['cost'])}")
        stage.say("  (priced as the model that was asked for; the script itself costs nothing)")
        stage.check(
            task.cost > 0 and _same(usage.get("total_cost"), task.cost),
            f"the project's ledger has {dollars(task.cost)}, exactly what the task says",
        )


def _budget(stage: Stage, server: DemoServer) -> None:
    stage.title("4. A task is stopped by its budget")
    stage.command(f'stationmaster run --max-cost {TINY_BUDGET} "{SECOND}"')
    with server.client() as client:
        task = stage.watch(client, client.submit(SECOND, TaskOptions(max_cost=TINY_BUDGET)))
    stage.check(task.status == "cost_exceeded", "it ended as cost_exceeded")
    stage.check(
        task.cost <= TINY_BUDGET,
        f"it cost {dollars(task.cost)}, within its {dollars(TINY_BUDGET)}: what a call may cost at"
        " worst is reserved before it is made",
    )


def _crash(stage: Stage, server: DemoServer) -> None:
    stage.title("5. The server is killed in the middle of a task")
    with server.client() as client:
        task = client.submit(THIRD)
        before = stage.glimpse(client, task, "agent.tool_use")
    family = server.family()
    stage.check(bool(family), f"the agent is at work in {len(family)} processes")
    stage.command(f"kill -9 {server.pid}")
    server.kill()
    stage.check(all_gone(family), "every process of the agent died with its server")
    stage.command("stationmaster serve")
    server.start()
    stage.say(f"  ready again at {server.url}")
    with server.client() as client:
        task = client.wait(task.id, patience=RECOVERY_S)
        stage.check(task.status == "interrupted", "the task ended once, as interrupted")
        after = _history(client, task.id)
        stage.check(
            after[: len(before)] == before,
            f"its history is intact: the {len(before)} events seen before the crash, then"
            f" {len(after) - len(before)} more",
        )
        numbers = [event.seq for event in after]
        stage.check(numbers == list(range(1, len(after) + 1)), "no event is missing or twice")
        total = client.usage("day").get("total_cost")
        sum_of_tasks = sum(item.cost for item in client.tasks(limit=100).items)
        stage.check(
            _same(total, sum_of_tasks),
            f"the ledger is settled: {dollars(sum_of_tasks)} in all, with a call that was cut"
            " booked at the most it could have cost",
        )
        alive = client.health()["services"]["agents"].get("alive")
        stage.check(alive == 0, "no agent is left over")


def _stop(stage: Stage, server: DemoServer) -> None:
    stage.title("The server stops in good order")
    family = server.family()
    stage.check(server.stop() == 0, "SIGTERM: it ended by itself, with exit code 0")
    stage.check(all_gone(family), "nothing of it is left running")


def _history(client: Client, task_id: str) -> list[TaskEvent]:
    events, after, ended = list[TaskEvent](), 0, False
    while not ended:
        page = client.events(task_id, after=after, limit=100)
        events += page.events
        ended = page.ended or not page.events
        after = page.next
    return events


def _same(found: object, wanted: float) -> bool:
    """Equal to the micro-dollar."""
    return isinstance(found, int | float) and round(found * 1e6) == round(wanted * 1e6)


def _farewell(stage: Stage) -> None:
    stage.title(f"All shown, in {stage.elapsed():.0f} seconds. What to type next")
    stage.command("stationmaster doctor                 # is everything here that it needs?")
    stage.command('stationmaster run "write a haiku"    # a task, with a server of its own')
    stage.command("export ANTHROPIC_API_KEY=...         # real answers, by Claude")
    stage.command("stationmaster serve                  # a server; /docs has its API")
