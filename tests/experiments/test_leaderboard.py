"""The leaderboard: its order, what counts as unseen, its page, and what is submitted to it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from uaplib import files, metrics, models, releases, transfer
from uaplib.balls import linf
from uaplib.experiments import Recipe, images, leaderboard, recipes, store, studies
from uaplib.experiments.leaderboard import Entry
from uaplib.perturbation import UniversalPerturbation

VICTIMS = ("resnet-mini", "vgg-f-mini")
BALL = linf(24)


def entry(name, group, seen=(), **counts):
    """A row that fools the first so many of ten photographs on each network."""
    fooled = {victim: np.arange(10) < count for victim, count in counts.items()}
    about = {"method": name, "title": name, "group": group, "crafted_on": "+".join(seen), "sees": "nothing"}
    cost = {"gradients": 100, "seed": 0, "made": "make it"}
    return Entry(name, fooled=fooled, seen=frozenset(seen), **about, **cost)


ROWS = [
    entry("a", "without data", ["x"], x=10, y=4, z=6),
    entry("b", "without data", [], x=6, y=5, z=1),
    entry("c", "with data", ["x", "y"], x=9, y=9, z=7),
    entry("d", "not optimised", [], x=3, y=3, z=3),
]


@pytest.fixture
def board(folders, forgotten, clothes, monkeypatch):
    """A leaderboard of two mini networks and 60 pictures of clothes, in a folder of artifacts of its own."""
    few = clothes.images[:60], clothes.labels[:60]
    monkeypatch.setattr(images, "_load", lambda model, role, count: few)
    monkeypatch.setattr(recipes, "of_the_book", images.at_hand)
    monkeypatch.setattr(images, "of_the_book", images.at_hand)
    rows = [Recipe("noise", VICTIMS[0], BALL), Recipe("chessboard", VICTIMS[0], BALL)]
    study = studies.TransferStudy(rows, VICTIMS)
    monkeypatch.setattr(leaderboard, "transfer_studies", lambda: {leaderboard.STUDY: study})
    study.measure(folder=store.kept_folder())
    return study


def submitted(tmp_path, delta=None, **about):
    """The file of a perturbation that could be submitted."""
    delta = BALL.sample_boundary((1, 1, 28, 28), torch.Generator().manual_seed(5)) if delta is None else delta
    mine = UniversalPerturbation(delta, **{"ball": BALL, "method": "mine", "source": VICTIMS[1]} | about)
    mine.save(tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_the_mean_is_over_what_was_not_seen():
    row = ROWS[0]
    assert row.unseen == ["y", "z"]
    assert row.mean(row.unseen).value == pytest.approx(0.5)
    assert row.mean(["x", "y", "z"]).value == pytest.approx(2 / 3)
    low, high = row.mean(row.unseen).interval
    assert 0 < low < 0.5 < high < 1
    assert str(row.rate("y")) == str(metrics.Proportion(4, 10))


def test_rows_are_compared_on_what_neither_has_seen():
    a, b, c, d = ROWS
    assert a.behind(ROWS) == 2  # "b" and "d" on y and z, where "a" has 50 %; on z "c" has 70 %
    assert b.behind(ROWS) == 1  # "d"; on y and z "b" has 30 %, on z 10
    assert c.behind(ROWS) == 3
    assert d.behind(ROWS) == 0
    assert entry("e", "with data", ["x", "y", "z"], x=10, y=10, z=10).behind(ROWS) == 0


def test_the_best_of_a_group_in_black_and_in_white_box():
    def best(group, victim, black_box=True):
        found = leaderboard.best(ROWS, group, victim, black_box)
        return found and found.name

    assert best("without data", "y") == "b"
    assert best("without data", "z") == "a"
    assert best("without data", "x") == "b"  # "a" has seen it
    assert best("with data", "y") is None
    assert best("with data", "y", black_box=False) == "c"
    assert best("without data", "x", black_box=False) == "a"
    assert best("without data", "y", black_box=False) is None


def test_the_table_says_what_each_row_saw_and_cost():
    found = leaderboard.table(ROWS)
    assert found["perturbation"].tolist() == ["a", "b", "c", "d"]
    assert found["leaves behind"].tolist() == [2, 1, 3, 0]
    assert found["networks"].tolist() == [2, 3, 1, 3]
    assert found["unseen"].tolist() == pytest.approx([50, 40, 70, 30])
    assert found["all"].tolist() == pytest.approx([200 / 3, 40, 250 / 3, 30])
    assert found["x"].tolist() == pytest.approx([100, 60, 90, 30])
    assert set(found["gradients"]) == {100}


def test_the_page_shows_every_row_and_the_best_of_each_network():
    page = leaderboard.page(ROWS)
    assert "4 perturbations, 3 networks, 10 photographs" in page
    black, white = page.split("## Networks that a perturbation was crafted on")
    x, y, z = (line for line in black.splitlines() if line.startswith(("| x", "| y", "| z")))
    assert all("**30.0**" in line for line in (x, y, z))
    assert "**60.0**" in x
    assert "**50.0**" in y
    assert y.endswith("| – |")  # with data nothing is left that has not seen it
    assert "a, x" in z
    assert "c, x+y" in z
    assert "**90.0**" in white
    assert "| *d* |" in white
    assert white.count("`make it`") == len(ROWS)


@pytest.mark.usefixtures("checkout")
def test_the_books_page_is_that_of_its_cells():
    pytest.importorskip("efficientnet_lite_pytorch")
    page = (files.checkout() / "book" / leaderboard.PAGE).read_text(encoding="utf-8")
    assert page == leaderboard.page(leaderboard.entries())


def test_rows_come_from_the_kept_cells_in_their_order(board):
    found = leaderboard.entries()
    assert found[0].behind(found) == 1 > found[1].behind(found)
    assert {row.name for row in found} == set(board.rows)
    assert {(row.group, row.gradients, row.crafted_on) for row in found} == {("not optimised", 0, "")}
    matrix = board.kept()
    for row in found:
        assert all((row.fooled[victim] == matrix.fooled[row.name, victim]).all() for victim in VICTIMS)


def test_without_its_cells_there_is_no_leaderboard(board):
    (store.kept_folder() / board.cells).unlink()
    with pytest.raises(FileNotFoundError, match="uaplib transfer --study families"):
        leaderboard.entries()


def test_what_is_submitted_is_checked_measured_kept_and_shown(board, tmp_path):
    row = leaderboard.submit(submitted(tmp_path), "my-row", "images")
    assert (row.group, row.sees, row.crafted_on) == ("with data", "images", VICTIMS[1])
    assert row.unseen == [VICTIMS[0]]
    kept = UniversalPerturbation.load(store.kept_folder() / leaderboard.files("my-row")[0])
    model, test = models.load(VICTIMS[0]), images.images_for(VICTIMS[0], "evaluation")
    again = metrics.evaluate(model, *test, kept.delta)
    assert row.rate(VICTIMS[0]).count == again.fooling_rate.count
    assert "submitted:my-row" in {each.name for each in leaderboard.entries()}
    assert leaderboard.submit(submitted(tmp_path), "my-row", "nothing").group == "without data"  # said again


@pytest.mark.parametrize(
    ("about", "name", "why"),
    [({}, "My Row", "small letters"), ({}, "", "small letters"), ({"ball": linf(25)}, "row", "budget"),
     ({"delta": torch.zeros(1, 3, 28, 28)}, "row", "3 channels"), ({"source": ""}, "row", "on which network"),
     ({"source": "+".join(VICTIMS)}, "row", "none that it has not seen")],
)  # fmt: skip
def test_what_is_refused(board, tmp_path, about, name, why):
    with pytest.raises(ValueError, match=why):
        leaderboard.submit(submitted(tmp_path, **about), name)
    assert leaderboard.submissions() == []


def test_what_crafting_saw_is_a_known_word(board, tmp_path):
    with pytest.raises(ValueError, match="sees='imges' is unknown"):
        leaderboard.submit(submitted(tmp_path), "mine", "imges")


def test_other_photographs_make_no_row(board, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "of_the_book", lambda *_: {"images": 60, "images_sha256": "others"})
    with pytest.raises(ValueError, match="photographs here are not those"):
        leaderboard.submit(submitted(tmp_path), "mine")


def test_no_row_stands_there_twice(board, tmp_path):
    file = submitted(tmp_path)
    leaderboard.submit(file, "first")
    with pytest.raises(ValueError, match="same perturbation as first"):
        leaderboard.submit(file, "second")
    other = -UniversalPerturbation.load(file).delta
    with pytest.raises(ValueError, match="first is another perturbation"):
        leaderboard.submit(submitted(tmp_path, other), "first")
    with pytest.raises(ValueError, match="or one of another network"):
        leaderboard.submit(submitted(tmp_path, source=VICTIMS[0]), "first")
    with pytest.raises(ValueError, match="on the leaderboard already: chessboard"):
        leaderboard.submit(submitted(tmp_path, board.recipes[1].find().delta), "mine")
    assert leaderboard.submissions() == ["first"]


def test_a_submission_that_misses_a_network_has_no_row_until_it_is_measured(board, tmp_path, monkeypatch):
    load = models.load

    def lacks(name, *rest):
        if name == VICTIMS[1]:
            raise FileNotFoundError(f"the weights of {name} are not here")
        return load(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(models, "load", lacks)
        with (
            pytest.raises(FileNotFoundError, match=f"{VICTIMS[1]} could not be measured"),
            pytest.warns(UserWarning, match="is left out"),
        ):
            leaderboard.submit(submitted(tmp_path), "mine")
    assert {each.name for each in leaderboard.entries()} == set(board.rows)
    leaderboard.submit(submitted(tmp_path), "mine")
    assert {each.name for each in leaderboard.entries()} == {*board.rows, "submitted:mine"}


def test_releases_say_where_they_are_and_what_they_saw(monkeypatch):
    cells = pd.DataFrame({"source": ["published:fff-VGG-16"], "victim": ["x"], "white_box": [False]})
    matrix = transfer.TransferMatrix(cells, {("published:fff-VGG-16", "x"): np.array([True, False])})
    row = leaderboard._of_release("fff-VGG-16", matrix)
    assert (row.title, row.group, row.crafted_on) == ("FFF, released", "without data", "VGG-16")
    assert row.made == releases.RELEASES["fff-VGG-16"].url
    assert row.unseen == ["x"]
    uap = replace(matrix, table=cells.assign(source="published:uap-VGG-16"), fooled={("published:uap-VGG-16", "x"): 0})
    assert leaderboard._of_release("uap-VGG-16", uap).group == "with data"


def test_the_cost_of_old_records_is_read_from_their_iterations():
    recipe = Recipe("gd-uap-range", "resnet-mini", BALL)
    assert leaderboard._gradients(recipe, {"iterations": 300}) == 1200
    assert leaderboard._gradients(recipe, {"iterations": 300, "gradients": 7}) == 7
    assert leaderboard._gradients(recipe, {}) is None
    assert leaderboard._gradients(Recipe("noise", "resnet-mini", BALL), {}) == 0
