"""The auditor's side of the hub: fifteen questions, who may ask them, and a door that only reads."""
