"""Lets `python -m bract_server.cli` be `bract`."""

from bract_server.cli.main import main

main()
