"""Questions, answers and verdicts: invariance, refusals, and what a suspect that knows the key gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from miue.core.errors import UserError
from miue.core.run import Run
from miue.core.types import ImageSet, stretch
from miue.trace import (
    Answers,
    Asked,
    Parameters,
    Questions,
    Secret,
    ask_directly,
    direct_test,
    gradient_test,
    judge,
    picture_test,
    weigh,
)
from miue.trace.answers import Kept, ask, hardened, of_labels, of_scores, read
from miue.trace.questions import Direct, digest_of_all
from miue.trace.tests import response

CLASSES = tuple("abcdefghij")
SECRET = Secret(Parameters(classes=CLASSES, canvas=16), b"\7" * 32)
OTHER = Secret(Parameters(classes=CLASSES, canvas=16), b"\10" * 32)


def pictures(count: int = 120, size: int = 16) -> ImageSet:
    images = torch.randint(
        40, 216, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    return ImageSet(images, torch.arange(count) % 10, CLASSES, "base")


def knowing(secret: Secret, strength: float = 0.05):
    """A suspect whose logits grow with the correlation of a picture and the key of each class."""
    keys = stretch(secret.signs.float(), 16, 16).flatten(1)

    def suspect(x: torch.Tensor) -> torch.Tensor:
        return (x.float() - 128).flatten(1) @ keys.T * strength / 100

    return suspect


def test_a_suspect_that_knows_the_key_is_found_by_every_test():
    suspect, run = knowing(SECRET), Run()
    verdict = judge(suspect, SECRET, pictures(), count=1000)
    assert verdict.evidence and verdict.p < 1e-6 and verdict.bound and verdict.z > 5
    assert verdict.further["assignment"] <= 2e-5 and verdict.further["labels alone"] < 1e-4
    labels = judge(suspect, SECRET, pictures(), labels_only=True)
    assert labels.kind == "labels" and labels.evidence and labels.z < verdict.z
    assert judge(suspect, SECRET, pictures(), test="sequential").evidence
    assert judge(suspect, SECRET, pictures(), test="unlabelled").evidence
    both = judge(suspect, SECRET, pictures(), test="two stages")
    assert both.p == min(1, 2 * min(both.further["blind"], both.further["direct"])) and both.evidence
    questions = Questions.of(SECRET.parameters, pictures())
    assert gradient_test(lambda x: suspect(x * 255), SECRET.opened, questions.base, run).p < 1e-6
    labels = ask_directly(suspect, SECRET.opened, questions.base, labels_only=True)
    assert labels.kind == "labels" and direct_test(labels, SECRET.opened).p < 1e-3


def test_the_same_suspect_is_not_found_with_another_key():
    suspect = knowing(OTHER)
    verdict = judge(suspect, SECRET, pictures())
    assert not verdict.evidence and verdict.p > 0.01 and "does not show" in verdict.reason
    questions = Questions.of(SECRET.parameters, pictures())
    assert gradient_test(lambda x: suspect(x * 255), SECRET.opened, questions.base).p > 0.01
    assert not judge(suspect, SECRET, pictures(), test="sequential").evidence


def test_scores_of_every_kind_give_the_same():
    logits = torch.randn(200, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = of_scores(logits, CLASSES)
    for same in (logits.softmax(1), logits.log_softmax(1), logits + 7):
        assert torch.allclose(of_scores(same, CLASSES).values, whole.values)
    labels = of_labels([CLASSES[i] for i in logits.argmax(1).tolist()], CLASSES)
    assert torch.equal(hardened(whole).values, labels.values) and hardened(whole).digest == labels.digest


def written(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def questions() -> Questions:
    return Questions.of(SECRET.parameters, pictures(), count=150)


@pytest.fixture
def answers(questions: Questions) -> Answers:
    return ask(knowing(SECRET), questions.batches(), CLASSES)


def test_order_names_and_columns_do_not_matter(tmp_path: Path, questions: Questions, answers: Answers):
    logits = answers.values
    rows = [f"{i}," + ",".join(repr(float(v)) for v in row) for i, row in enumerate(logits)]
    plain = read(written(tmp_path / "a.csv", "question," + ",".join(CLASSES), rows), CLASSES, 150)
    turned = [f"DIR/{i:04d}.png," + ",".join(repr(float(v)) for v in row.flip(0)) for i, row in enumerate(logits)]
    mixed = read(written(tmp_path / "b.csv", "question," + ",".join(CLASSES[::-1]), turned[::-1]), CLASSES, 150)
    assert plain.digest == mixed.digest
    same = [weigh(each, questions.asked, SECRET.opened) for each in (plain, mixed)]
    assert same[0].p == same[1].p and same[0].z == same[1].z
    best = [CLASSES[i] for i in logits.argmax(1).tolist()]
    labels = read(written(tmp_path / "c.csv", "label,question", [f"{b},{i}" for i, b in enumerate(best)]), CLASSES, 150)
    one_hot = weigh(hardened(plain), questions.asked, SECRET.opened)
    assert weigh(labels, questions.asked, SECRET.opened).p == one_hot.p == same[0].further["labels alone"]


def test_the_size_of_batches_does_not_matter(questions: Questions):
    labels = [hardened(ask(knowing(SECRET), questions.batches(size), CLASSES)) for size in (7, 64, 150)]
    assert len({each.digest for each in labels}) == 1


def test_parquet_is_read_as_well(tmp_path: Path, questions: Questions):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"question": list(range(150)), "label": [CLASSES[i % 10] for i in range(150)]}), tmp_path / "a.parquet"
    )
    assert read(tmp_path / "a.parquet", CLASSES, 150).kind == "labels"


@pytest.mark.parametrize(
    ("header", "rows", "why"),
    [
        ("question,label", ["0,a"] * 2, "answered twice"),
        (
            "question,label",
            [f"{i},a" for i in range(150) if i not in (3, 7)],
            "2 of 150 questions .* answer: 3, 7",
        ),
        ("question,label", [f"{i},a" for i in range(151)], "none of the 150 questions"),
        ("question,label", [f"{i},zebra" for i in range(150)], "'zebra' is none of the classes"),
        ("question,a,zebra", [f"{i},1,2" for i in range(150)], "the column 'zebra' is none of the classes"),
        ("question,a,b", [f"{i},1,many" for i in range(150)], "a score is no number"),
        ("picture,label", ["0,a"], "no column `question`"),
        ("question,label", ["0,a", "1"], "different numbers"),
        ("question,a,a", ["0,1,2"], "two columns"),
    ],
)
def test_answers_that_are_not_understood_are_told(tmp_path: Path, header: str, rows: list[str], why: str):
    with pytest.raises(UserError, match=why):
        read(written(tmp_path / "a.csv", header, rows), CLASSES, 150)


def test_labels_with_unknown_names_are_tested_without_them(tmp_path: Path, questions: Questions, answers: Answers):
    best = hardened(answers).values.argmax(1).tolist()
    path = written(tmp_path / "a.csv", "question,label", [f"{i},n{b * 7 % 10}" for i, b in enumerate(best)])
    with pytest.raises(UserError, match="--labels unknown"):
        read(path, CLASSES, 150)
    verdict = weigh(read(path, CLASSES, 150, unknown=True), questions.asked, SECRET.opened)
    assert verdict.test == "unlabelled"


def test_a_class_that_the_suspect_does_not_know_counts_nothing(tmp_path: Path, questions: Questions, answers: Answers):
    rows = [f"{i}," + ",".join(repr(float(v)) for v in row[:9]) for i, row in enumerate(answers.values)]
    fewer = read(written(tmp_path / "a.csv", "question," + ",".join(CLASSES[:9]), rows), CLASSES, 150)
    columns = fewer.columns(CLASSES, range(10))
    assert columns[:, 9].abs().max() == 0 and response(columns, questions.asked.signs)[9].abs().max() == 0


def test_questions_hold_a_field_and_nothing_of_a_key():
    questions = Questions.of(SECRET.parameters, pictures(), count=100, amplitude=16)
    index = torch.tensor([3, 99])
    shown = torch.cat(list(questions.batches())).to(torch.int16)[index] - questions.base[index // 2]
    expected = stretch(questions.asked.signs[index].float(), 16, 16) * 16
    assert (shown - expected).abs().max() <= 0.5
    assert Questions.of(OTHER.parameters, pictures(), count=100).asked == questions.asked
    signs = questions.asked.signs.flatten(1).double()
    assert (signs @ SECRET.signs.flatten(1).double().T / 48).mean().abs() < 0.05


def test_what_a_picture_says_by_itself_cancels():
    """Two questions in turn show one picture with opposite signs; who ignores the fields responds to none."""
    questions = Questions.of(SECRET.parameters, pictures(), 200)
    assert torch.equal(questions.asked.signs[::2], -questions.asked.signs[1::2])
    first, second = questions.pairs(torch.tensor([3])).int()
    assert (first + second - 2 * questions.base[3].int()).abs().max() == 0 and not torch.equal(first, second)
    fixed = torch.rand(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    assert response(fixed, questions.asked.signs).abs().max() < 1e-12


def test_fields_follow_from_the_base():
    """Whoever exchanges a picture gets other fields, so that pictures cannot be chosen to fit a key."""
    base = pictures()
    one = Questions.of(SECRET.parameters, base, 240).asked
    changed = base.images.clone()
    changed[7, 0, 0, 0] ^= 1
    other = Questions.of(SECRET.parameters, base.with_images(changed), 240).asked
    assert one.base != other.base and abs(float((one.signs * other.signs).float().mean())) < 0.05
    again = Questions.of(SECRET.parameters, base, 240, seed=1).asked  # the base can be stated before the seed
    assert again.base == one.base and not torch.equal(again.signs, one.signs)


def test_pictures_are_compared_with_what_a_list_says():
    base = pictures()
    base = base.with_images(torch.where(torch.arange(16) < 8, base.images, 255))  # the field would not fit there
    content = Questions.of(SECRET.parameters, base, 300)
    shown, asked = torch.cat(list(content.batches())), content.asked
    assert not asked.wrong(shown)
    written = asked.model_copy(update={"pictures": digest_of_all(shown)})
    assert not written.wrong(shown) and "2 pictures" in asked.wrong(shown[:2])
    other = shown.clone()
    other[4, 0, 0, 0] ^= 1
    assert "were written" in written.wrong(other) and "fields of the seed" in asked.wrong(other)
    other[5, 0, 0, 0] = (other[5, 0, 0, 0].int() + other[4, 0, 0, 0].int() - shown[4, 0, 0, 0].int()).to(torch.uint8)
    assert "do not follow" in asked.wrong(other)  # another clean picture
    assert "fields of the seed" in Asked.model_validate({**asked.model_dump(), "seed": 1}).wrong(shown)


def test_questions_do_not_depend_on_the_order_of_pictures():
    base = pictures()
    turned = base.select(torch.arange(len(base) - 1, -1, -1))
    one, other = (Questions.of(SECRET.parameters, each, count=130) for each in (base, turned))
    assert one.asked == other.asked and torch.equal(one.base, other.base)
    labels = [base.labels[(base.images == picture).flatten(1).all(1)] for picture in one.base[:10]]
    assert len(set(torch.cat(labels).tolist())) == 10  # classes take turns


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"count": 99}, "at least 100"),
        ({"count": 301}, "even number"),
        ({"amplitude": 0}, "1 to 127"),
        ({"base": pictures(99)}, "99 different pictures"),
    ],
)
def test_questions_that_test_nothing_are_refused(given: dict, why: str):
    with pytest.raises(UserError, match=why):
        Questions.of(SECRET.parameters, **{"base": pictures(), **given})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda x: x[:, 0], "scores of every class"),
        (lambda x: torch.zeros(len(x), 3), "3 scores"),
        (lambda x: torch.zeros(len(x)), "whole number"),
        (lambda x: torch.full((len(x), 10), torch.nan), "not finite"),
        (lambda x: torch.full((len(x),), 10), "'output 10'"),
    ],
)
def test_suspects_that_give_something_else_are_told(answer, why: str):
    with pytest.raises(UserError, match=why):
        judge(answer, SECRET, pictures(), count=100)


@pytest.mark.parametrize("given", [{"alpha": 0.2}, {"alpha": 0.0}, {"suspects": 0}])
def test_levels_are_checked_before_anybody_is_asked(given: dict):
    def suspect(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("was asked")

    with pytest.raises(UserError):
        judge(suspect, SECRET, pictures(), **given)


def test_a_level_is_shared_by_the_suspects():
    suspect = knowing(SECRET, 0.004)
    alone = judge(suspect, SECRET, pictures(), count=150, alpha=0.05)
    p = alone.p
    assert judge(suspect, SECRET, pictures(), count=150, alpha=0.05, suspects=10**6).evidence == (p <= 0.05 / 10**6)
    assert "1 of 3 suspects" in judge(suspect, SECRET, pictures(), count=150, suspects=3).reason


def test_direct_questions_are_crossed_and_mixed_with_decoys():
    direct = Direct.of(SECRET.opened, 5)
    assert not torch.equal(direct.order, Direct.of(OTHER.opened, 5).order)  # nobody knows it before the keys
    assert not torch.equal(direct.decoys, direct.keys)
    assert len(direct) == 2 * 10 * 5 and sorted(direct.order.tolist()) == list(range(100))
    answers = torch.zeros(100, 10)
    for place, cell in enumerate(direct.order.tolist()):
        if cell // 5 < 10:
            answers[place, cell // 5] = 1
    assert torch.equal(direct.by_key(answers), torch.eye(10))
    shown = torch.cat(list(direct.batches(pictures().images[:5], 16))).float()
    assert len({tuple(picture.flatten().tolist()) for picture in shown}) == 100


def test_the_picture_test_sees_single_pictures():
    """A suspect that remembers which of the two marks each picture had."""
    secret = Secret(Parameters(classes=CLASSES, canvas=16, keys=2), b"\7" * 32)
    data, digests = pictures(120), [f"{i:064x}" for i in range(120)]
    marks = (stretch(secret.signs.float(), 16, 16) * 4).flatten(1)
    coins = torch.tensor(secret.coins(digests))
    kept = marks[2 * data.labels + coins]

    def remembering(x: torch.Tensor) -> torch.Tensor:
        difference = x.float().flatten(1)[:, None] - (data.images.float().flatten(1) + kept)[None]
        nearest = difference.square().sum(2)
        i = nearest.argmin(1)
        logits = torch.zeros(len(x), 10)
        logits[torch.arange(len(x)), data.labels[i]] = (nearest.amin(1) < 20).float() * 2
        return logits

    assert picture_test(remembering, secret, data, digests).p < 1e-4
    assert picture_test(remembering, secret, data, digests[::-1]).p > 1e-3
    with pytest.raises(UserError, match="--trace-keys 2"):
        picture_test(remembering, SECRET, data, digests)
    doubled = data.select(torch.arange(120).repeat(30))  # equal files share their coin, so they are one observation
    once, often = (
        picture_test(remembering, secret, images, names) for images, names in ((data, digests), (doubled, digests * 30))
    )
    assert often.z == pytest.approx(once.z) and often.p == pytest.approx(once.p)
    with pytest.raises(UserError, match="needs scores"):
        picture_test(lambda x: remembering(x).argmax(1), secret, data, digests)


def test_tests_that_do_not_exist_or_do_not_fit_are_refused():
    suspect = knowing(SECRET)
    for test in ("gradient", "pictures"):
        with pytest.raises(UserError, match="allowed are signs, unlabelled, sequential, two stages"):
            judge(suspect, SECRET, pictures(), test=test)
    few = Secret(Parameters(classes=CLASSES[:6], canvas=16), b"\7" * 32)
    with pytest.raises(UserError, match=r"with 6 keys, p of a sequential test is at least 0.0014"):
        judge(lambda x: suspect(x)[:, :6], few, pictures(), test="sequential")
    assert judge(lambda x: suspect(x)[:, :6], few, pictures(), test="sequential", alpha=0.05).p >= 1 / 720
    answers = ask(suspect, Questions.of(SECRET.parameters, pictures()).batches(), CLASSES)
    with pytest.raises(UserError, match="belong together"):
        weigh(answers, Questions.of(SECRET.parameters, pictures()).asked, SECRET.opened, test="two stages")
    with pytest.raises(UserError, match="7 answers to direct questions"):
        direct_test(Answers(answers.values[:7], CLASSES, "scores"), SECRET.opened)


def test_kept_answers_are_the_same_to_the_last_bit():
    answers = ask(knowing(SECRET), Questions.of(SECRET.parameters, pictures()).batches(), CLASSES)
    for each in (answers, hardened(answers)):
        again = Kept.model_validate_json(each.kept.model_dump_json())
        assert again.answers.digest == each.digest and torch.equal(again.answers.values, each.values)
