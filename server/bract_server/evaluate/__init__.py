"""Evaluation of encoders on shipped or consented labelled data."""
