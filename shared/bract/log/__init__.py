"""The log: an append-only Merkle tree of what happened, its signed checkpoints, proofs and verification."""
