"""The book in a browser: no errors, formulas drawn, and no sideways scrolling on a phone."""

import functools
import http.server
import threading
from pathlib import Path

import pytest

from tests.book.conftest import PAGES

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PHONE = 390
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
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(browser, address):
    """A window that gets nothing from elsewhere; `window.wrong` collects what went wrong on the present page."""
    wrong = []

    def answer(route):
        if route.request.url.startswith(address):
            route.continue_()
        elif route.request.url == BADGE:
            route.fulfill(content_type="image/svg+xml", body=PICTURE)
        else:
            wrong.append(f"asks for {route.request.url}")
            route.abort()

    context = browser.new_context()
    context.route("**/*", answer)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda response: wrong.append(f"{response.status} {response.url}") if not response.ok else None)
    page.wrong = wrong
    yield page
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_page(name, window, address):
    """No errors, all formulas drawn, and nothing wider than a phone on either theme."""
    window.wrong.clear()
    window.set_viewport_size({"width": 1280, "height": 900})
    window.goto(f"{address}/{name}.html", wait_until="load")
    formulas = window.locator("article .math").count()
    if formulas:
        window.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        window.evaluate("MathJax.startup.promise.then(() => null)")
    assert window.locator("article mjx-container").count() >= formulas
    assert window.locator("article mjx-merror").count() == 0
    window.set_viewport_size({"width": PHONE, "height": 844})
    for scheme in ("light", "dark"):
        window.emulate_media(color_scheme=scheme)
        window.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        assert window.evaluate(TOO_WIDE) == []
        assert window.evaluate("document.documentElement.scrollWidth") <= PHONE
    assert window.wrong == []


def test_search_finds_a_word(window, address):
    window.goto(f"{address}/search.html?q=overshoot", wait_until="load")
    window.wait_for_selector("#search-results li")
