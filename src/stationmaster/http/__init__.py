"""The HTTP side: parse, call one verb with a principal, render."""
