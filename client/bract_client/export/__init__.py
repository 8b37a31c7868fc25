"""Documents for others, made from the site's registry."""
