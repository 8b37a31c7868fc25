"""The hub: coordinates rounds, keeps the registry, holds no raw record."""
