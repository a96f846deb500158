"""The documentation as a site: it is complete, needs no network, and can be searched in a real browser."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import h5split
import pack_images
from conftest import PATIENCE
from h5split import cli as h5split_cli
from pack_images import arguments

pytest.importorskip("mkdocs", reason="needs MkDocs: pip install 'pack-images[docs]'")
pytest.importorskip("selenium", reason="needs selenium: pip install 'pack-images[dev]'")

from selenium.webdriver.common.by import By  # imported only if selenium is installed
from selenium.webdriver.support.ui import WebDriverWait

from chromium import phone

PROJECT = Path(__file__).parents[1]
QUIET = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the documentation, with warnings as errors. Return its folder."""
    built = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    done = subprocess.run(build, cwd=PROJECT, capture_output=True, text=True, env=QUIET)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return built


def test_the_site_names_every_option_setting_and_public_name(site):
    pages = {path.stem: html.unescape(path.read_text()) for path in (site / "reference").iterdir()}
    of_h5split = h5split_cli._parser()._subparsers._group_actions[0].choices.values()
    for page, parsers in (("pack-images", [arguments.parser()]), ("h5split", of_h5split)):
        for action in (action for parser in parsers for action in parser._actions if action.dest != "help"):
            for option in action.option_strings or [action.metavar]:
                assert f"<code>{option}" in pages[page] or f", {option}" in pages[page], option
    for name in h5split.Settings.__dataclass_fields__:
        assert f">{name}</span></code>" in pages["h5split-python"], name
    for module, page in ((h5split, "h5split-python"), (pack_images, "pack-images-python")):
        for name in set(module.__all__) - {"__version__"}:
            assert re.search(f'id="{module.__name__}(.errors)?.{name}"', pages[page]), name


def test_the_site_asks_no_other_server_for_anything(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r"""<(?:script|img|iframe|source)[^>]* src=["']?([^"' >]+)""", page.read_text())
        loaded += re.findall(
            r"""<link[^>]* rel="(?:stylesheet|icon|preconnect)"[^>]* href="([^"]+)""", page.read_text()
        )
        assert [link for link in loaded if "//" in link] == []


def test_the_site_can_be_searched_when_opened_from_disk(site, browser):
    browser.get((site / "guides/torch.html").as_uri())
    query = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    query.click()
    query.send_keys("skip-unlabelled")
    links = "return [...document.querySelectorAll('a.md-search-result__link')].map(link => link.href)"
    found = WebDriverWait(browser, PATIENCE).until(lambda _: browser.execute_script(links))
    assert any("reference/pack-images.html" in link for link in found)


@pytest.mark.parametrize("page", ["index", "quickstart", "reference/pack-images", "benchmarks", "coming-from"])
def test_a_page_of_the_site_fits_a_phone(site, browser, page):
    phone(browser)
    browser.get((site / f"{page}.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
