"""The endpoints. Each parses, calls one verb with a principal, and renders."""
