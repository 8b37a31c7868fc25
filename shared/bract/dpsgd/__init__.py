"""The private engine: subjects are sampled, clipped and noised here, and nowhere else."""
