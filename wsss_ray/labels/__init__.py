"""Parts that jobs share which make or read label files: the run, its sink and summary, its inputs, and scores."""
