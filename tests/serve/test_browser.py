"""Report and review in a real browser: nothing that a text brings along runs, keys work, nothing sticks out."""

import shutil
import time

import pytest

from capfilt.clean import reviews
from capfilt.clean.telling import gather
from capfilt.report.clean import write_clean_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pages are not looked at")
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: pages are not looked at"),
]
STICKS_OUT = """() => [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length &&
  e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('svg') && !e.matches('.skip'))
  .map(e => e.tagName + '.' + e.className)"""


def until(page, expression: str, limit_s: float = 20.0) -> None:
    """Waits until that holds. Playwright's own waiting would evaluate strings in the page, which its policy forbids."""
    end = time.monotonic() + limit_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came: {expression}; said: {page.said}"
        page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def look(chromium):
    """Opens a page; `page.said` is what it complained of, `page.asked` every address it wanted."""
    opened = []

    def look(address: str, width: int = 1200, scheme: str = "light", script: bool = True):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        opened.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        return page

    yield look
    for context in opened:
        context.close()


@pytest.fixture
def report(run) -> str:
    return write_clean_report(run / "report", gather(run)).as_uri()


@pytest.fixture
def review(client, look):
    def review(**of):
        page = look(client.server.url, **of)
        page.wait_for_selector("#rows .card.current")
        return page

    return review


# ---- the report -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_of_the_report_runs_but_its_own_script(look, report, scheme):
    page = look(report, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.title().startswith("run1") and not page.said, page.said
    assert all(address.startswith(("file:", "data:")) for address in page.asked)
    assert page.locator(".card img").count() > 10 and page.locator("[onerror], [onload], [onfocus]").count() == 0


def test_the_sliders_count_as_the_table_does(look, report):
    page = look(report)
    box = page.locator(".bars")
    assert box.is_visible()
    for row in page.locator("#bars tbody tr").all():
        bar, *counts = row.locator("th, td").all_inner_texts()
        for slider in box.locator("input").all():
            slider.fill(str(round(100 * float(bar))))
        assert [
            box.locator(f'[data-count="{n}"]').inner_text() for n in ("keep", "replace", "drop", "failed")
        ] == counts


def test_the_report_can_be_read_without_a_script(look, report):
    page = look(report, script=False)
    assert not page.locator(".bars").is_visible() and page.locator("#bars table").is_visible()


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_of_the_report_sticks_out(look, report, width):
    page = look(report, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(STICKS_OUT) == []


# ---- the review -------------------------------------------------------------------------------------------------


def test_nothing_of_the_review_runs_but_its_own_script(review, client):
    page = review()
    for _ in range(4):
        page.locator("#after").click()
        until(page, "document.querySelectorAll('#rows .card').length > 0")
    page.locator("#replace-box summary").click()
    page.locator("#replace [name=find]").fill("<")
    page.locator("#replace [name=put]").fill("<img src=x onerror=\"document.title='ran'\"><")
    page.locator("#replace button[type=submit]").click()
    page.wait_for_selector("#examples li")
    assert page.title() == "Review run1 · capfilt" and not page.said, page.said
    assert page.locator("[onerror], [onload], [onfocus], #rows script, #rows svg").count() == 0
    assert all(address.startswith(f"http://127.0.0.1:{client.server.server_port}/") for address in page.asked)
    assert "token" not in page.url


def test_keys_accept_reject_edit_and_undo(review, run):
    page = review()
    rows = page.evaluate("state.rows.map(r => [r.id, r.decision])")
    card = page.locator("#rows .card.current")

    def here() -> str:
        return card.get_attribute("data-id")

    def said(row: str, verdict: str) -> None:
        until(page, f"(state.rows.find(r => r.id === '{row}').said?.verdict ?? 'nothing') === '{verdict}'")

    page.keyboard.press("r")
    said(rows[0][0], "reject")
    until(page, f"document.querySelector('.current').dataset.id === '{rows[1][0]}'")
    page.keyboard.press("a")
    said(rows[1][0], "accept")
    until(page, f"document.querySelector('.current').dataset.id === '{rows[2][0]}'")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("a jar of keys: j k r a u")
    page.keyboard.press("Control+Enter")
    said(rows[2][0], "edit")
    until(page, f"document.querySelector('.current').dataset.id === '{rows[3][0]}'")
    page.keyboard.press("k")
    assert here() == rows[2][0]
    words = reviews.last_words(run)
    assert [words[row].verdict for row, _ in rows[:3]] == ["reject", "accept", "edit"]
    assert words[rows[2][0]].text == "a jar of keys: j k r a u"
    page.keyboard.press("u")
    said(rows[2][0], "nothing")
    assert set(reviews.last_words(run)) == {rows[0][0], rows[1][0]}


def test_j_goes_on_to_the_next_page_and_k_back(review):
    page = review()
    for _ in range(20):
        page.keyboard.press("j")
    until(page, "state.offset === 20 && state.current === 0")
    page.keyboard.press("k")
    until(page, "state.offset === 0 && state.current === 19")


def test_filters_and_find_and_replace(review, run):
    page = review()
    page.locator("[name=decision]").select_option("keep")
    page.locator("#filters [name=text]").fill("red boat")
    until(page, "state.rows.length && state.rows.every(r => r.decision === 'keep' && r.key.includes('red boat'))")
    total = page.evaluate("state.total")
    page.locator("#replace-box summary").click()
    page.locator("#replace [name=find]").fill("red")
    page.locator("#replace [name=put]").fill("blue")
    assert page.locator("#apply").is_disabled()
    page.locator("#replace button[type=submit]").click()
    page.wait_for_selector("#apply:enabled")
    assert not (run / reviews.NAME).exists()
    page.locator("#apply").click()
    until(page, "document.querySelector('#replaced').textContent.startsWith('Replaced')")
    assert len(reviews.last_words(run)) == total
    page.locator("#undo").click()
    until(page, "document.querySelector('#undo').disabled")
    assert reviews.last_words(run) == {}


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_of_the_review_sticks_out(review, width):
    page = review(width=width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(STICKS_OUT) == []


def test_every_field_and_button_has_a_name(review):
    page = review()
    page.keyboard.press("e")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea')].filter(e =>
             !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"""
    )
    assert nameless == []
