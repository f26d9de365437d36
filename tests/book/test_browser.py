"""The book in a browser: no errors, formulas drawn, and no sideways scrolling on a phone."""

import functools
import http.server
import threading
from pathlib import Path

import pytest

from tests.book.conftest import PAGES

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PHONE, DESKTOP = 390, 1280
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"/>'

# Elements that reach beyond the window without a box of their own to scroll in.
TOO_WIDE = """() => [...document.querySelectorAll('article *')].filter(element => {
    if (!element.getClientRects().length || element.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let box = element; box && box.tagName !== 'ARTICLE'; box = box.parentElement)
        if (getComputedStyle(box).overflowX !== 'visible') return false;
    return true;
}).map(element => element.outerHTML.slice(0, 120))"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(html):
    handler = functools.partial(_Quiet, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open a page of the book; return it together with all that went wrong."""
    contexts = []

    def answer(route, wrong):
        if route.request.url.startswith(address):
            route.continue_()
        elif route.request.url == BADGE:
            route.fulfill(content_type="image/svg+xml", body=PICTURE)
        else:
            wrong.append(f"asks for {route.request.url}")
            route.abort()

    def open_page(name, width=DESKTOP, scheme="light"):
        wrong = []
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        context.route("**/*", lambda route: answer(route, wrong))
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.goto(f"{address}/{name}.html", wait_until="load")
        if page.locator("article .math").count():
            page.wait_for_selector("article mjx-container", state="attached")
            page.evaluate("MathJax.startup.promise.then(() => null)")
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_no_errors_and_all_formulas_drawn(name, visit):
    page, wrong = visit(name)
    assert wrong == []
    assert page.locator("article mjx-merror").count() == 0
    assert page.locator("article mjx-container").count() >= page.locator("article .math").count()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_sideways_scrolling_on_a_phone(name, scheme, visit):
    page, _ = visit(name, PHONE, scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    assert page.evaluate(TOO_WIDE) == []


def test_search_finds_a_word(visit):
    page, _ = visit("search")
    page.goto(page.url + "?q=overshoot", wait_until="load")
    page.wait_for_selector("#search-results li", timeout=15_000)
