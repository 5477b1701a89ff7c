"""Run all jobs from images to an evaluated student, one after the other."""
