"""The rendered book: complete, without dead ends, and with one public address."""

import importlib.metadata
import re
from copy import copy
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.book.conftest import CHAPTERS, PAGES, ROOT, working_files
from uaplib import attacks

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
OWN = CONFIG["repository"]["url"].removeprefix("https://github.com/")
COLAB = f"https://colab.research.google.com/github/{OWN}/blob/{CONFIG['repository']['branch']}/"
GENERATED = {"genindex", "py-modindex", "prf-prf", "search", "index"}  # pages that are in no table of contents


@pytest.fixture(params=PAGES)
def page(request) -> str:
    return request.param


@pytest.fixture
def soup(page, html, soups):
    return soups[html / f"{page}.html"]


@pytest.fixture
def article(soup):
    return soup.find("article")


def test_jupyter_book_1():
    assert importlib.metadata.version("jupyter-book").startswith("1.")


def test_builds_without_a_warning(build):
    log = (build / "build.log").read_text(encoding="utf-8")
    assert [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line] == []
    assert log.splitlines()[0] == "0", log[-3000:]


def test_pages_are_those_of_the_table_of_contents(html):
    names = [path.relative_to(html).with_suffix("").as_posix() for path in html.rglob("*.html")]
    built = {name for name in names if not name.startswith("_static/")}
    assert built - GENERATED == set(PAGES)


def test_every_chapter_is_in_the_table_of_contents():
    assert working_files("notebooks/*.ipynb") == [f"{chapter}.ipynb" for chapter in sorted(CHAPTERS)]


def test_page_has_content(page, html, article):
    assert (html / f"{page}.html").stat().st_size > 15_000
    assert len(article.get_text().split()) > (10 if page == "book/status" else 100)


def test_language_and_title(soup):
    assert soup.html["lang"] == "en"
    assert len(soup.find("article").find_all("h1")) == 1
    assert CONFIG["title"].lower() in soup.title.get_text().lower()


def test_first_page_leads_to_the_introduction(html):
    assert "book/intro.html" in (html / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def anchors(soups):
    """The names that a link may point at, for each page."""
    return {
        path: {element[key] for key in ("id", "name") for element in soup.find_all(attrs={key: True})}
        for path, soup in soups.items()
    }


def test_links_inside_the_book_resolve(page, html, anchors, soup):
    here, dead = html / f"{page}.html", []
    for element in soup.find_all(["a", "img", "link", "script", "source"]):
        address = element.get("href") or element.get("src")
        if not address or urlsplit(address).scheme or address.startswith("//"):
            continue
        parts = urlsplit(address)
        target = (here.parent / unquote(parts.path)).resolve() if parts.path else here
        target = target / "index.html" if target.is_dir() else target
        if not target.exists() or (parts.fragment and unquote(parts.fragment) not in anchors[target]):
            dead.append(address)
    assert dead == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_colab_button_opens_this_chapter(chapter, html, soups):
    soup = soups[html / f"{chapter}.html"]
    links = [a["href"] for a in soup.select('a[href^="https://colab.research.google.com/"]')]
    assert set(links) == {f"{COLAB}{chapter}.ipynb"}
    assert len(links) == 2, "one launch button, one badge"
    assert working_files(f"{chapter}.ipynb") == [f"{chapter}.ipynb"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_has_figures_with_captions(chapter, html, soups):
    figures = soups[html / f"{chapter}.html"].select("article figure")
    assert figures
    for figure in figures:
        assert figure.find("img")
        assert re.match(r"Fig\. \d", figure.find("figcaption").get_text().strip())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_has_a_numbered_algorithm_and_folded_solutions(chapter, html, soups):
    soup = soups[html / f"{chapter}.html"]
    assert soup.select("article .algorithm")
    assert len(soup.select("article .solution.dropdown")) == len(soup.select("article .exercise")) > 0


def test_images_have_a_description(article):
    for image in article.find_all("img"):
        alt = image.get("alt", "").strip()
        assert alt, image["src"]
        assert not re.search(r"\.(png|svg|jpe?g|gif)$|^\.\./|^_images", alt), alt


def test_nothing_failed_to_render(article):
    assert not article.select(".problematic, .system-message")
    prose = copy(article)  # the other tests read the code
    for code in prose.select("pre, code, .math, script"):
        code.decompose()
    text = prose.get_text()
    for trace in ("[?]", "{ref}", "{cite", "{numref}", "{eq}", "{term}", "{doc}", "{prf:ref}", ":::", "```", "??"):
        assert trace not in text


def test_no_error_in_an_output(soup):
    for output in soup.select(".cell_output"):
        assert "Traceback (most recent call last)" not in output.get_text()
    assert not soup.select(".cell_output .stderr")


def test_no_trace_of_execution(soup):
    text = str(soup)
    for trace in ("tag_injected-parameters", "widget-view+json", "widget-state+json"):
        assert trace not in text
    paths = r"(?<![\w./~:-])/(?:home|root|tmp|work|mnt|Users|private)/[\w.-]+"
    assert re.findall(paths, soup.find("article").get_text()) == []


def test_page_loads_nothing_from_elsewhere(soup):
    sources = [element.get("src") for element in soup.find_all(["script", "iframe", "source"])]
    sources += [link["href"] for link in soup.find_all("link") if "stylesheet" in link.get("rel", [])]
    images = [image["src"] for image in soup.find_all("img")]
    assert [source for source in sources if source and urlsplit(source).netloc] == []
    assert {source for source in images if urlsplit(source).netloc} <= {
        "https://colab.research.google.com/assets/colab-badge.svg"
    }


def test_formulas_come_with_the_book(page, soup):
    scripts = [script["src"] for script in soup.find_all("script", src=True)]
    if soup.select("article .math"):
        assert any("_static/mathjax/" in script for script in scripts)


def test_static_folder_holds_what_every_page_needs(html):
    own = {Path(name).name for name in working_files("book/_static")}
    assert {name for name in own if name.endswith((".js", ".css"))} == {"custom.css"}
    assert all((html / "_static" / name).is_file() for name in own)
    assert all((ROOT / name).stat().st_size < 400_000 for name in working_files("book/_static"))


def test_every_attack_is_on_the_library_page(html, soups):
    soup = soups[html / "book" / "api.html"]
    assert [name for name in attacks.__all__ if not soup.find(id=f"uaplib.attacks.{name}")] == []


def test_no_entry_of_the_library_page_says_nothing(html, soups):
    assert "Alias for field number" not in soups[html / "book" / "api.html"].get_text()


def test_the_library_page_lists_the_methods_as_their_table_does(html, soups):
    rows = soups[html / "book" / "api.html"].select("article table tbody tr")
    cells = [[cell.get_text() for cell in row.find_all("td")] for row in rows if len(row.find_all("td")) == 4]
    for (name, row), (first, title, *rest) in zip(attacks.METHODS.items(), cells, strict=True):
        assert [first, *rest] == [name, row.sees, row.cost]
        assert title.startswith(f"{row.title} [" if row.paper else row.title)


def test_introduction_links_the_chapters_that_exist(html, soups):
    soup = soups[html / "book" / "intro.html"]
    rows = list(soup.select("article table tbody tr"))
    assert [int(row.td.get_text()) for row in rows] == list(range(1, len(rows) + 1))
    linked = {int(row.td.get_text()): row.a["href"] for row in rows if row.a}
    assert list(linked.values()) == [f"../{chapter}.html" for chapter in CHAPTERS]
    assert list(linked) == [int(Path(chapter).name[:2]) for chapter in CHAPTERS]


def test_one_public_address():
    """Links to this book's repository, wherever they stand, say what `_config.yml` says."""
    owner, repository = OWN.split("/")
    always_own = r"colab\.research\.google\.com/github/|git\+https://github\.com/"
    wrong = []
    for name in working_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for prefix, found in re.findall(rf"({always_own}|github\.com/)([\w.-]+/[\w.-]+)", text):
            found = found.removesuffix(".git").rstrip(".")
            is_own = prefix != "github.com/" or found.split("/")[0] == owner or found.split("/")[1] == repository
            if is_own and found != OWN:
                wrong.append(f"{name}: {prefix}{found}")
    assert wrong == []
