"""Names of folders that mean "good", "train", "test" or "ground_truth", and are written otherwise."""

import re
import unicodedata

GOOD = "good"
SIDES = ("train", "test", "ground_truth")
_BETWEEN = re.compile(r"[\W\d_]+")
_WORDS = """
good ok okay okey normal normals nominal pass passed passing fine sound healthy clean intact perfect flawless faultless
undamaged nondefective notdefective nodefect nodefects defectfree defectless withoutdefect withoutdefects nofault
nofaults faultfree noanomaly noanomalies anomalyfree nonanomalous notanomalous acceptable accepted accept conforming
compliant correct qualified negative errorfree noerror noerrors
gut gute io inordnung fehlerfrei einwandfrei mangelfrei gutteil gutteile gutbilder goed goede normaal foutloos
bon bons bonne bonnes normale normaux normales conforme conformes sansdefaut sansdéfaut sansdéfauts buono buoni buona
buone normali conformi senzadifetti bueno buenos buena buenas sindefecto sindefectos bom boa boas normais semdefeito
semdefeitos bra god godt godkänd godkand godkendt godkjent hyvä hyva normaali dobry dobre dobra dobrý dobré dobrá
normalny normalne normální wporządku vpořádku vporadku jó hibátlan iyi sağlam saglam hatasiz kusursuz tốt baik bagus
хорошо хороший хорошие годен годный годные норма нормальный нормальные исправный исправные добре καλό καλά κανονικό
好 良 良好 合格 正常 正 完好 无缺陷 無缺陷 無欠陥 欠陥なし 異常なし 問題なし 正常品 良品 合格品 양호 정상 양품 합격
무결함 جيد سليم טוב תקין अच्छा सामान्य ดี ปกติ
"""
_SAMPLES = """
image images img imgs picture pictures photo photos sample samples part parts product products piece pieces item items
only set class test train teile bilder
"""
_SAMPLES_JOINED = re.compile("(品|件|样本|樣本|样品|图片|图像|圖片|圖像|画像|写真|サンプル|이미지|제품|부품|샘플)+$")


def means_good(name: str) -> bool:
    """Tell whether a folder's name says in another spelling, or in another language, what "good" says.

    "OK", "i.O.", "normal_images", "defect-free" and "正常品" do; "not_good", "nok" and "normalized_scratch" do not.
    """
    words = [word for word in _words(name) if word not in _SAMPLES.split()]
    joined = _SAMPLES_JOINED.sub("", "".join(words))
    return name != GOOD and (joined in _GOOD or (words != [] and all(word in _GOOD for word in words)))


def meant_side(name: str) -> str | None:
    """Find which of SIDES a folder's name is in another spelling, such as "Train" or "ground-truth"; else None."""
    side = {"train": "train", "test": "test", "groundtruth": "ground_truth"}.get(
        re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
    )
    return side if side != name else None


def _words(name: str) -> list[str]:
    return [word for word in _BETWEEN.split(unicodedata.normalize("NFKC", name).casefold()) if word]


_GOOD = frozenset("".join(_words(word)) for word in _WORDS.split())
