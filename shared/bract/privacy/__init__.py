"""Privacy as values: what was done to the data, what it cost, what may still be spent."""
