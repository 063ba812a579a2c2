"""`python -m stationmaster` is the command `stationmaster`."""

from stationmaster.cli import main

if __name__ == "__main__":
    main()
