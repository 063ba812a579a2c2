import os
import subprocess
import sys

import pytest

from stationmaster.agents.base import AgentUnavailable
from stationmaster.agents.claude_code.uids import lease_uid

# Each test worker has its own: they lease from the same machine.
_FIRST = 64_700 + 10 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_UIDS = range(_FIRST, _FIRST + 2)


def test_no_two_have_the_same() -> None:
    first, second = lease_uid(_UIDS), lease_uid(_UIDS)
    assert first.uid != second.uid
    with pytest.raises(AgentUnavailable):
        lease_uid(_UIDS)
    first.release()
    first.release()
    third = lease_uid(_UIDS)
    assert third.uid == first.uid
    third.release()
    second.release()


def test_another_server_of_this_machine_does_not_get_it_either() -> None:
    program = (
        "from stationmaster.agents.claude_code.uids import lease_uid\n"
        f"print(lease_uid({_UIDS!r}).uid)"
    )
    mine = lease_uid(_UIDS)
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert int(said.stdout) != mine.uid
    mine.release()


def test_a_dead_servers_lease_is_free_again() -> None:
    program = (
        "import os\nfrom stationmaster.agents.claude_code.uids import lease_uid\n"
        f"lease = lease_uid({_UIDS!r})\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    lease = lease_uid(_UIDS)
    assert lease.uid == _UIDS[0]
    lease.release()


def test_one_that_a_process_runs_as_is_left_alone() -> None:
    with pytest.raises(AgentUnavailable):
        lease_uid([os.getuid()])
