"""Train a student on labels."""
