"""What jobs that make or read label files share: the run, its sink and summary, its inputs, and scores."""
