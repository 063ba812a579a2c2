"""Wake-ups and passing news between parts of the server. Never the truth: that is in the book."""
