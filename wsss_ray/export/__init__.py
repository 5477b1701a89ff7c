"""Export labels to formats that other tools read."""
