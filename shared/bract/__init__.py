"""bract: the vocabulary that a site, a hub and an auditor share.

Glossary:
    record: one piece of data at a site (an image, a row); it never leaves.
    subject: the person (or machine) whose consent a record needs; the unit of privacy.
    clearance: a site's signed, short-lived word that consent holds for a purpose; it names no one.
    campaign: what an operator wants pretrained, signed by the hub; it has rounds.
    contribution: a site's signed word on what it sent in a round and what that cost in privacy.
    encoder version: the aggregated arrays, named by their digest.
"""

__version__ = "0.1.0"
