"""Retention in a database and on a disk, the same on both sides: policies and holds, due lists, disposal and receipts."""
