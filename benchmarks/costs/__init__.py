"""``bench memory``, ``speed`` and ``soak``: what learning costs."""
