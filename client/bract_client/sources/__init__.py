"""Sources: where a site's records lie, read one by one; a bad record is named by its line and never guessed at."""
