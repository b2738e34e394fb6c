"""Perturbations of images, on the device where the model is."""
