"""Training of the demo's tiny models. The installed package does not contain it."""
