"""Opacus beside ours: its hooks as a reference engine, and our book-keeping step inside its users' scripts."""
