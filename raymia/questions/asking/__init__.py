"""What runs models to answer questions."""
