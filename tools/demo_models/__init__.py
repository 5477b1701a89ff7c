"""Training of the demo's tiny models; not part of the installed package."""
