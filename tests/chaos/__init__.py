"""A cluster of real processes under faults, and a recorder beside it that checks its promises."""
