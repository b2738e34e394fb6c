"""Settings of attacks and queries: what is tried, by which half it is chosen, what is found."""
