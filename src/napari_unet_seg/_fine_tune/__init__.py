"""Fine-tuning on layers of the viewer, and what a person sees of it."""
