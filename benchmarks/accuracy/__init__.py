"""``bench accuracy``: every method on a stream."""
