"""The auditor's side of a site: what it can answer of the fifteen questions, and what it holds of one person."""
