"""What leaves a registry for others to read: tables, documents in public formats, and the signed manifest beside them."""
