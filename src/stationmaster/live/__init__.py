"""Wake-ups and news, within a server and between servers. Never the truth: that is in the book."""
