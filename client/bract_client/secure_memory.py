"""What a site knows and has said in one secure round, so that it never says two things, also after a crash."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bract.errors import SECOND_ANSWER, STATE, BractError
from bract.files import read_private, write_private
from bract.secure.agreement import RoundKeys, new_keys, private_key
from bract.value import decode, encode, strict


@strict
@dataclass(frozen=True)
class _Secrets:
    """A round's private keys and seed, base64."""

    channel: str
    mask: str
    seed: str


@strict
@dataclass(frozen=True)
class _Step:
    """A stage that was asked for, and what was answered where that cannot be computed again; base64."""

    question: str
    answer: str


@dataclass(frozen=True)
class Memory:
    """What a site knows and has said in one round: private files, each on disk before anything of it is said."""

    folder: Path

    def keys(self) -> RoundKeys:
        """The round's secrets, made when they are first asked for."""
        path = self.folder / "keys.json"
        if not path.exists():
            fresh = new_keys()
            raw = (fresh.channel.private_bytes_raw(), fresh.mask.private_bytes_raw(), fresh.seed)
            write_private(path, encode(_Secrets(*(base64.b64encode(one).decode() for one in raw))))
        kept = decode(_Secrets, read_private(path))
        channel, mask, seed = (base64.b64decode(one) for one in (kept.channel, kept.mask, kept.seed))
        return RoundKeys(private_key(channel), private_key(mask), seed)

    def once(self, stage: str, question: bytes, make: Callable[[], bytes] = bytes) -> bytes:
        """The answer to a stage's question, made the first time.

        Raises:
            BractError: `second-answer` when another question was answered before.
        """
        path = self.folder / f"{stage}.json"
        if not path.exists():
            step = _Step(base64.b64encode(question).decode(), base64.b64encode(make()).decode())
            write_private(path, encode(step))
        kept = decode(_Step, read_private(path))
        if base64.b64decode(kept.question) != question:
            raise BractError(SECOND_ANSWER, stage)
        return base64.b64decode(kept.answer)

    def question(self, stage: str) -> bytes:
        """What was asked at a stage that was answered.

        Raises:
            BractError: `wrong-state` when it was not.
        """
        path = self.folder / f"{stage}.json"
        if not path.exists():
            raise BractError(STATE, f"the stage {stage} was not answered")
        return base64.b64decode(decode(_Step, read_private(path)).question)
