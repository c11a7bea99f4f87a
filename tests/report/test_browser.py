"""The page in a real browser: nothing refused, nothing requested, nothing wider than the screen, light and dark."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from capfilt.report import write_report

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: the page is not looked at")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


def browse(tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    return subprocess.run(
        [CHROMIUM, *QUIET, profile, *arguments], capture_output=True, text=True, timeout=90, check=True
    )


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("page"), report)


@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_page_is_painted_in_both_themes_without_a_complaint(page, tmp_path, scheme, dark):
    shot = tmp_path / "shot.png"
    theme = f"--blink-settings=preferredColorScheme={scheme}"
    done = browse(tmp_path, theme, f"--screenshot={shot}", "--window-size=1200,1500", page.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    pixels = np.asarray(Image.open(shot).convert("L")).astype(float)
    assert (pixels.mean() < 80) if dark else (pixels.mean() > 200)
    assert pixels.std() > 15, "a blank page"


def test_nothing_is_wider_than_a_phone(page, tmp_path):
    """A copy that may run one script, in a frame 390 px wide, reports whatever reaches past the edge."""
    script = (
        "<script>addEventListener('load',()=>{document.querySelectorAll('details').forEach(d=>d.open=true);"
        "const wide=[...document.querySelectorAll('body *')].filter(e=>e.getBoundingClientRect().right>innerWidth+1)"
        ".map(e=>e.tagName+'.'+e.getAttribute('class'));"
        "parent.postMessage(innerWidth+' '+document.documentElement.scrollWidth+' '+wide.join(','),'*')})</script>"
    )
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    (tmp_path / "copy.html").write_text(copy.replace("</body>", script + "</body>"), encoding="utf-8")
    (tmp_path / "host.html").write_text(
        "<script>onmessage=e=>document.title='FOUND '+e.data</script><iframe src=copy.html width=390 height=800 "
        "frameborder=0></iframe>",
        encoding="utf-8",
    )
    dom = browse(tmp_path, "--dump-dom", "--virtual-time-budget=4000", (tmp_path / "host.html").as_uri()).stdout
    found = re.search(r"<title>FOUND (\d+) (\d+) (.*?)</title>", dom)
    assert found, "the page never finished loading"
    assert (found[1], found[2], found[3]) == ("390", "390", ""), "window, page width, what sticks out"
