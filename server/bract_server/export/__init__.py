"""Documents for others, made from the hub's registry."""
