"""The command `stationmaster`: parse, call the server, print.

Modules of this package import nothing heavy before a command runs: `--help` and shell completion
must not wait for a web server and a database driver.
"""

import sys


def main() -> None:
    """Run the command line of this process and exit."""
    from stationmaster.cli.application import run

    sys.exit(run(sys.argv[1:]))
