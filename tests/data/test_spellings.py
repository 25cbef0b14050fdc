"""Folders that mean "good" or a side in another spelling are known, and no defect's name is taken for one."""

import pytest

from timenet_lib.data.drawn.catalogue import KINDS
from timenet_lib.data.spellings import means_good, meant_side

MEAN_GOOD = """
Good GOOD gOOd OK ok Ok o.k. okay normal Normal normal_ NORMAL-images ok_images OK_1 good2 good_parts no_defect
no-defects defect_free DefectFree pass passed PASS fine non-defective gut Gut Gutteile iO i.O. IO in_Ordnung bon Bonne
buono bueno Buenos bom goed godkänd dobrý хорошие норма iyi 正常 合格 良品 正常品 合格品 良品画像 OK品 정상 양품
정상이미지 جيد ดี
"""
SPACED = ["good ", " ok", "normal images", "in Ordnung", "no defect", "dobry\u0301", "\uff2f\uff2b"]
DEFECTS = """
good not_good no_good nogood NG ng nok NOK n.i.O. niO ko book bad defect defective normalized_scratch abnormal anomaly
passive fine_scratch sound_hole 不良 不良品 不合格 非正常 异常 불량 broken_large metal_contamination combined misplaced
okra goodbye bonding bombed good_bad bone token gutter normalmap compass 1 _
"""


@pytest.mark.parametrize("name", [*MEAN_GOOD.split(), *SPACED])
def test_words_for_good_are_known_in_any_spelling(name):
    assert means_good(name)


@pytest.mark.parametrize("name", [*DEFECTS.split(), "", *sorted({kind for kinds in KINDS.values() for kind in kinds})])
def test_defects_and_good_itself_are_left_alone(name):
    assert not means_good(name)


@pytest.mark.parametrize(
    ("name", "side"),
    [("Train", "train"), ("TEST", "test"), ("test ", "test"), ("Ground_Truth", "ground_truth"),
     ("ground-truth", "ground_truth"), ("groundtruth", "ground_truth"), ("train", None), ("ground_truth", None),
     ("training_2", None), ("test2", None), ("latest", None)],
)  # fmt: skip
def test_sides_are_known_in_other_spellings(name, side):
    assert meant_side(name) == side
