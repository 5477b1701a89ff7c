"""Cost of the networks on a GPU, counted without one: launches, memory traffic and arithmetic of each operator."""
