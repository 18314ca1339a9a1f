"""Running the composition: which frames go through which network, and what that cost."""
