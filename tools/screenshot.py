"""Make the picture of a report for README: a desktop window in light mode, and a phone's in dark mode.

    python tools/screenshot.py report.html docs/report.png

Needs Debian's chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
FLAGS += " --disable-background-networking --disable-component-update --disable-sync"
HEIGHT = 1640
GAP = 40


def picture(browser: webdriver.Chrome, page: Path, width: int, scheme: str, section: str) -> Image.Image:
    """Take a picture of the page in a window of this width, scrolled to a section."""
    size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature]})
    browser.get(page.as_uri())
    browser.execute_script("document.getElementById(arguments[0]).scrollIntoView()", section)
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the picture of a report.")
    parser.add_argument("page", type=Path)
    parser.add_argument("output")
    arguments = parser.parse_args()
    options = webdriver.ChromeOptions()
    with tempfile.TemporaryDirectory() as profile:
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium")
        with webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))) as browser:
            page = arguments.page.resolve()
            desktop = picture(browser, page, 1280, "light", "first")
            phone = picture(browser, page, 390, "dark", "sheets")
    both = Image.new("RGB", (desktop.width + GAP + phone.width, HEIGHT), "white")
    both.paste(desktop, (0, 0))
    both.paste(phone, (desktop.width + GAP, 0))
    both.quantize(255, dither=Image.Dither.FLOYDSTEINBERG).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
