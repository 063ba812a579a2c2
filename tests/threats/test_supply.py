"""What is installed is what was locked, and nothing runs before the program does."""

import re
import sysconfig
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))

# A line of a .pth file that begins with `import` is run at each start of the interpreter.
MAY_RUN_AT_START = {"coverage", "setuptools"}
FIXED_IN = {"starlette": (1, 0, 1), "claude-agent-sdk": (0, 2, 129)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_every_dependency_is_locked_to_a_version_and_its_hashes(lock: Path) -> None:
    text = re.sub(r"#.*", "", lock.read_text(encoding="utf-8")).replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert len(lines) > 20
    for name, *rest in lines:
        assert re.fullmatch(r"[A-Za-z0-9._\[\],-]+==[A-Za-z0-9.!+]+", name), name
        found = [word for word in rest if re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word)]
        assert found, name
        assert not any(word.startswith("--") and word not in found for word in rest), name


def test_only_what_has_its_hash_is_installed() -> None:
    setup = (ROOT / "scripts" / "setup").read_text(encoding="utf-8")
    installs = re.findall(r"pip install .*", setup)
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-deps" in command, command


def test_nothing_that_we_do_not_know_runs_at_the_interpreters_start() -> None:
    place = Path(sysconfig.get_paths()["purelib"])
    owners = {
        Path(str(file)).name: found.metadata["Name"].lower()
        for found in distributions()
        for file in found.files or ()
        if file.suffix == ".pth"
    }
    running = {
        file.name
        for file in place.glob("*.pth")
        if any(
            line.startswith(("import ", "import\t"))
            for line in file.read_text(encoding="utf-8").splitlines()
        )
    }
    assert {
        name: owners.get(name) for name in running if owners.get(name) not in MAY_RUN_AT_START
    } == {}
    assert not (place / "sitecustomize.py").exists()
    assert not (place / "usercustomize.py").exists()


@pytest.mark.parametrize("name", sorted(FIXED_IN))
def test_flaws_of_our_dependencies_are_fixed_in_what_is_installed(name: str) -> None:
    assert tuple(map(int, version(name).split(".")[:3])) >= FIXED_IN[name]
    locked = re.search(
        rf"^{re.escape(name)}==(\S+)", (ROOT / "requirements" / "runtime.lock").read_text(), re.M
    )
    assert locked is not None
    assert tuple(map(int, locked[1].split(".")[:3])) >= FIXED_IN[name]
