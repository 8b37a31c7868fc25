"""What a private step costs beside a plain one: time, memory, and whether every parameter trains (`__main__` says how)."""
