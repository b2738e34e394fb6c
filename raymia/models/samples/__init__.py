"""Models of images of which nothing is to be had but what they generated."""
