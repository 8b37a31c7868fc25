"""How our processes log: to standard error, one line an event, codes and names of sites only; never about a person."""

import logging

_NOISY = ("httpx", "alembic", "flwr", "grpc", "asyncio")


def start_logging() -> None:
    """Log from INFO on; of the libraries below us, warnings only."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
