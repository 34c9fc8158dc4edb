"""``bench memory``, ``speed``, ``soak``, ``growth`` and ``estimators``: what learning costs."""
