"""``bench questions``: the paper's own questions."""
