"""``bench questions``: the questions of the ZO-FC paper."""
