"""Objectives: one file each, one loss a record, a declared privacy structure and the paper it comes from."""
