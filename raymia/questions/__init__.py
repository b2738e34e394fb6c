"""Questions put to models: evidence schema, key, what is asked and how it is laid out."""
