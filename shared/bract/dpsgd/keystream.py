"""Random bits for privacy: AES-256 in counter mode keyed by the operating system [NIST SP 800-38A]."""

import hashlib
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray


class Keystream:
    """An endless stream of 64-bit words. Without a seed its key is secret, fresh, and stored nowhere else.

    A stream must not cross a fork: both processes would read the same words. Make one in the process that uses it.
    """

    def __init__(self, seed: int | None = None, label: str = "") -> None:
        key = os.urandom(32) if seed is None else hashlib.sha256(f"bract/{label}/{seed}".encode()).digest()
        self.private = seed is None
        self._encryptor = Cipher(AES(key), CTR(bytes(16))).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words."""
        return np.frombuffer(self._encryptor.update(bytes(8 * count)), np.uint64)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Multiples of 2^-53 in (0, 1]."""
        return ((self.words(count) >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
