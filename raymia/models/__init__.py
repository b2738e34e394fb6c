"""Model families: what a checkpoint is and can do, loading, memory, answers."""
