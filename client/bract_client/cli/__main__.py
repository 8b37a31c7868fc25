"""Lets `python -m bract_client.cli` be `bract-site`."""

from bract_client.cli.main import main

main()
