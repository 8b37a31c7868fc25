"""Random bits for privacy: AES-256 in counter mode keyed by the operating system [NIST SP 800-38A]."""

import hashlib
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

_SPARE = 2
"""Words behind a buffer: the cipher asks for room for a block more than it writes."""


class Keystream:
    """An endless stream of 64-bit words. Without a seed its key is secret, fresh, and stored nowhere else.

    Every stream has a key of its own, so that no two processes or ranks share one. A stream works in the process that
    made it and nowhere else: behind a fork both sides would read the same words. It can be neither copied nor pickled.
    """

    def __init__(self, seed: int | None = None, label: str = "") -> None:
        key = os.urandom(32) if seed is None else hashlib.sha256(f"bract/{label}/{seed}".encode()).digest()
        self.private = seed is None
        self._encryptor = Cipher(AES(key), CTR(bytes(16))).encryptor()
        self._process = os.getpid()

    def check_process(self) -> None:
        """That this is the process which made the stream.

        Raises:
            RuntimeError: it is a fork of it.
        """
        if os.getpid() != self._process:
            raise RuntimeError("a stream of random bits must not cross a fork: make one in the process that uses it")

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words.

        Raises:
            RuntimeError: as `check_process`.
        """
        return WordBuffer(count).refill(self)

    def fill(self, target: memoryview, zeros: memoryview) -> None:
        """Write the next words over `target`, which is `_SPARE` words longer than the `zeros` it is made from.

        Raises:
            RuntimeError: as `check_process`.
        """
        self.check_process()
        self._encryptor.update_into(zeros, target)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Multiples of 2^-53 in (0, 1]."""
        return ((self.words(count) >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53

    def below(self, bound: int, count: int) -> NDArray[np.int64]:
        """`count` independent whole numbers from 0 up to, not including, `bound`, each equally likely.

        As many bits as the largest needs; what is too large is thrown away. A remainder would favour small numbers.
        """
        mask = np.uint64((1 << (bound - 1).bit_length()) - 1)
        kept: list[NDArray[np.uint64]] = []
        missing = count
        while missing > 0:
            drawn = self.words(2 * missing + 8) & mask
            kept.append(drawn[drawn < bound][:missing])
            missing -= len(kept[-1])
        return np.concatenate(kept).astype(np.int64) if kept else np.empty(0, np.int64)


class WordBuffer:
    """Memory for words, written again and again: fresh memory would cost more than the cipher."""

    def __init__(self, count: int) -> None:
        everything = np.zeros(count + _SPARE, np.uint64)
        self._target = everything.data.cast("B")
        self._zeros = memoryview(bytes(8 * count))
        self._words = everything[:count]

    def refill(self, stream: Keystream) -> NDArray[np.uint64]:
        """The stream's next words; the same array at every call.

        Raises:
            RuntimeError: as `Keystream.check_process`.
        """
        stream.fill(self._target, self._zeros)
        return self._words
