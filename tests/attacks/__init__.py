"""Hostile inputs by reader: what a broken disk, a careless copy or a clever stranger may put in a file's place.

    changes.py    generators: a file cut at every byte, every byte flipped, every field of a JSON or TOML file wild
    victims.py    each reader with a small good input of its own
    named.py      the attacks that have a name: places (links, pipes, devices), bombs, forged files, strange names
    judge.py      the verdict: the right error class, one sentence, within the time, nothing written elsewhere

``tests/test_attacks.py`` runs them all and says how many there were.
"""
