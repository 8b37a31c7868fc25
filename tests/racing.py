"""Races between processes: forked after everything is imported, released together, each with its own connections."""

import json
import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from sqlalchemy import Engine

from bract.database import open_engine
from bract.errors import BUDGET, BractError

Attempt = Callable[[Engine, int, Callable[[], object]], object]
"""One attempt to reserve: the database, its number, and a point at which all of them meet once more."""


def granted(url: str, count: int, attempt: Attempt) -> int:
    """How many of `count` processes that start together are granted what they ask; the others hear of the budget."""
    context = get_context("fork")
    start, middle = context.Barrier(count), context.Barrier(count)
    children: list[int] = []
    for number in range(1, count + 1):
        child = os.fork()
        if child == 0:
            _one(url, number, attempt, start, middle)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if set(codes) - {0, 3}:
        raise SystemExit(f"a process failed by itself: {codes}")
    return codes.count(0)


def _one(url: str, number: int, attempt: Attempt, start: Barrier, middle: Barrier) -> None:
    code = 1
    try:
        engine = open_engine(url)
        with engine.connect():
            pass  # a connection is there before the race
        start.wait()
        try:
            attempt(engine, number, middle.wait)
            code = 0
        except BractError as error:
            code = 3 if error.code == BUDGET else 1
    finally:
        os._exit(code)


def main(attempts: dict[str, Attempt], argv: list[str]) -> None:
    """`URL COUNT WHICH`: prints how many were granted."""
    url, count, which = argv
    sys.stdout.write(json.dumps(granted(url, int(count), attempts[which])) + "\n")
