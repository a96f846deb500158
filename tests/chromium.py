"""A real browser for tests of pages: its start, and the windows that it shows pages in. Needs selenium."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from conftest import PATIENCE

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
]


class Chromium(webdriver.Chrome):
    """Chromium; on a busy machine, chromedriver may say that a page is loaded while it is still being read."""

    def get(self, url):
        super().get(url)
        whole = "return document.readyState === 'complete' && document.URL === arguments[0]"
        WebDriverWait(self, PATIENCE).until(lambda _: self.execute_script(whole, url))


@contextlib.contextmanager
def started(profile):
    """Start the browser with a folder for its profile. Skip the test if there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chromium(options=options, service=Service(driver)) as browser:
        browser.command_executor.client_config.timeout = PATIENCE  # of each command; 120 s, by default
        browser.set_page_load_timeout(PATIENCE)
        browser.set_script_timeout(PATIENCE)
        yield browser


def restore(browser):
    """Set the default state: wide window, light colour scheme, scripts on."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    color_scheme(browser, "light")
    browser.get("about:blank")
    browser.get_log("browser")


def color_scheme(browser, name):
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def phone(browser):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
