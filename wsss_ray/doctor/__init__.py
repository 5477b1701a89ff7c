"""The doctor: whether every node of a cluster can run a labelling job, checked in seconds."""
