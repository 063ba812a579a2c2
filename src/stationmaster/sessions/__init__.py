"""Sessions: conversations with an agent in a workspace, each one stream of the book."""
