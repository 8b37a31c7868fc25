"""The site: admits records by consent, trains on them privately, and lets out one signed update a round."""
