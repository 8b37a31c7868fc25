"""`bract demo`: the whole journey on one machine, with real processes, told as it happens."""
