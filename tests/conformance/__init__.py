"""Which official client can do what here: the table of `docs/conformance.md`, and what fills it.

.venv/bin/python -m tests.conformance           # prints the table
.venv/bin/python -m tests.conformance --write   # writes the page
"""
