"""The checker of notebook 06's exercise; those of 01 to 04 are tested beside what else these notebooks use."""

import numpy as np

from timenet_lib.course.checkers import RIGHT, check_gain_interval
from timenet_lib.intervals import ends


def test_the_intervals_checker_knows_right_from_wrong_and_says_what_is_wrong():
    def ci(x, tail=0.025):
        return np.quantile(x, [tail, 1 - tail])

    wrong = {
        "not yet": lambda a, b: None,
        "raises ValueError: no": lambda a, b: (_ for _ in ()).throw(ValueError("no")),
        "two numbers": lambda a, b: (a - b).mean(),
        "set against each other": lambda a, b: (ci(a)[0] - ci(b)[1], ci(a)[1] - ci(b)[0]),
        "a draw's images are the same": lambda a, b: ci(a) - ci(b),
        "b's gain over a": lambda a, b: ci(b - a),
        "90 %": lambda a, b: ci(a - b, 0.05),
        "all draws": lambda a, b: ((a - b).min(), (a - b).max()),
        "their own mean": lambda a, b: (a - b).mean() + np.array([-1.96, 1.96]) * (a - b).std() / len(a) ** 0.5,
        "draws of a - b": lambda a, b: ci(a + b),
    }
    assert check_gain_interval(lambda a, b: ends(a - b)) == RIGHT
    assert check_gain_interval(lambda a, b: tuple(ci(a - b))) == RIGHT
    says = {words: check_gain_interval(f) for words, f in wrong.items()}
    assert all(words in said for words, said in says.items()), says
    assert len(set(says.values())) == len(wrong) - 1  # the two ways to set intervals against each other
