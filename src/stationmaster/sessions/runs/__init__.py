"""Runs: one turn of a session, from the message that asks for it to its one end."""
