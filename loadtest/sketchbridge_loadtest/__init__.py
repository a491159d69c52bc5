"""Shows how fast the service is, and that what is hostile costs it little."""
