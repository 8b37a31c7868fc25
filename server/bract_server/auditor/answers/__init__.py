"""One function a question: what the registry says, as a draft. Each takes what may be seen, when, and the arguments."""
