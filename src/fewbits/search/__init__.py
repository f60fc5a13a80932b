"""Which bits where: plans searched under limits on accuracy and on what they cost."""
