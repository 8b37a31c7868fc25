"""Terms that consent speaks in: purposes, conditions of use, legal bases. Pinned, cited, pure data."""
