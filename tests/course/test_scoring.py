import torch

from timenet_lib.course.checkers import RIGHT, check_formula_5


def test_the_checker_knows_right_from_wrong_and_says_what_is_wrong():
    def right(d1, d2, w):
        return w * (d2.max() / d1.max() if d1.max() > 0 else 0.0) * d1 + d2

    def per_image(d1, d2, w):
        parts = [right(a, b, w) for a, b in zip(d1, d2, strict=True)]
        return torch.stack(parts)

    wrong = {
        "not yet": lambda d1, d2, w: None,
        "raises ValueError: no": lambda d1, d2, w: (_ for _ in ()).throw(ValueError("no")),
        "a map of the shape": lambda d1, d2, w: d1.sum(),
        "with w = 0": lambda d1, d2, w: right(d1, d2, w) + 1,
        "look at the division": lambda d1, d2, w: w * d2.max() / d1.max() * d1 + d2,
        "ten times d1": lambda d1, d2, w: w * d1 + d2,
        "scope 'image'": per_image,
        "term by term": lambda d1, d2, w: right(d1, d2, w * w),
    }
    assert check_formula_5(right) == RIGHT
    for words, f in wrong.items():
        assert words in check_formula_5(f), words
