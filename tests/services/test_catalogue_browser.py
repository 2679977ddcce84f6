"""The catalogue page in real Chromium: by keyboard alone, wide and narrow, light and dark, and under attack."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from hxmlops_evidence import statements
from hxmlops_sharing.tokens import create_token

CHECKS = (Path(__file__).parent / "page_checks.js").read_text()
EXAMPLES = Path(statements.__file__).parent / "examples"
DRIVER = "/usr/bin/chromedriver"
MODEL = bytes(range(256)) * 4096
EVIL = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Site:
    """Two servers with something in them, and the tokens of an admin and of a vendor."""

    models: str
    datasets: str
    admin: str
    vendor: str
    version: int
    evil: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    tokens = folder / "tokens.json"
    held = {}
    for client, scopes, artifacts in (("admin", ["admin"], ["*"]), ("vendor", ["read", "write"], ["churn*"])):
        create_token(tokens, folder / client, client=client, scopes=scopes, artifacts=artifacts, days=10)
        held[client] = (folder / client).read_text().strip()
    with serving(folder, "model") as models, serving(folder, "dataset") as datasets:
        headers = {"Authorization": f"Bearer {held['admin']}"}
        with (
            httpx.Client(base_url=f"{models}/api/v1", headers=headers, timeout=30) as model_api,
            httpx.Client(base_url=f"{datasets}/api/v1", headers=headers, timeout=30) as dataset_api,
        ):
            version, evil = fill_models(model_api)
            fill_datasets(dataset_api)
        yield Site(models, datasets, held["admin"], held["vendor"], version, evil)


@contextlib.contextmanager
def serving(folder: Path, kind: str) -> Iterator[str]:
    """A server as users start it; its URL."""
    settings = {
        "KIND": kind,
        "DATABASE": folder / f"{kind}.sqlite",
        "STORE": folder / kind,
        "TOKENS": folder / "tokens.json",
        "PORT": 0,
    }
    environment = os.environ | {f"HXMLOPS_SHARING_{name}": str(value) for name, value in settings.items()}
    log = folder / f"{kind}.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "hxmlops_sharing", "serve"], env=environment, stderr=file)
    try:
        yield f"http://127.0.0.1:{within(60, lambda: port_in(log, process))}"
    finally:
        process.terminate()
        process.wait()


def port_in(log: Path, process: subprocess.Popen[bytes]) -> int | None:
    assert process.poll() is None, log.read_text()
    lines = [line for line in log.read_text().splitlines() if '"serving"' in line and line.endswith("}")]
    return int(json.loads(lines[0])["port"]) if lines else None


def within[T](seconds: float, look: Callable[[], T | None]) -> T:
    """What `look` gives, as soon as it is something."""
    ends = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > ends:
            raise TimeoutError
        time.sleep(0.05)


def statement(type_: str) -> dict[str, Any]:
    example = json.loads((EXAMPLES / f"{type_}.json").read_text())
    return statements.sign(example, ec.generate_private_key(ec.SECP256R1()))


def fill_models(api: httpx.Client) -> tuple[int, int]:
    def upload(name: str, version: str, data: bytes, **fields: Any) -> int:
        form = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in fields.items()}
        answer = api.post("/model", data={"name": name, "version": version, **form}, files={"file": data})
        return int(answer.raise_for_status().json()["modelIdentifier"])

    for number in range(52):
        upload(f"segment-{number:02d}", "1.0.0", bytes([number]), tag="segments", domain="mno-production")
    old = upload("churn", "1.0.0", b"old", status="training")
    version = upload(
        "churn", "1.0.1", MODEL, status="staging", tag="churn", domain="software-vendor", library="onnx",
        libraryVersion="1.22", parameters={"learning_rate": 0.08, "grid": {"folds": [3, 5]}},
        characteristics={"statement": statement("evidence"), "acceptance": statement("acceptance")},
    )  # fmt: skip
    api.put("/aliases/champion", params={"name": "churn"}, json={"identifier": version}).raise_for_status()
    api.delete(f"/model/{old}", params={"version": "1.0.0"}).raise_for_status()
    fields = dict.fromkeys(("domain", "library", "libraryVersion", "class"), EVIL) | {"tag": f"\"'>{EVIL}"}
    evil = upload(
        f"{EVIL}<img src=x onerror=alert(2)>", f"1{EVIL}", b"x", **fields,
        parameters={EVIL: EVIL, "url": "javascript:alert(3)", "list": [{EVIL: [EVIL]}]},
        characteristics={EVIL: {"payloadType": statements.PAYLOAD_TYPE, "payload": EVIL}, "w" * 300: "w" * 900},
    )  # fmt: skip
    api.post("/files", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "1048576"}).raise_for_status()
    assert api.get("/model/by_id/1", headers={"Authorization": f"Bearer {EVIL}"}).status_code == 401
    return version, evil


def fill_datasets(api: httpx.Client) -> None:
    envelope = statement("protection")
    form = {"name": "churn", "version": "1.0.1", "parameters": json.dumps({"statement": envelope}), "tag": "churn"}
    files = {"datasetFile": b"rows" * 1000, "dataModelFile": json.dumps(envelope).encode()}
    api.post("/dataset", data=form, files=files).raise_for_status()


class Browser:
    """A Chromium of its own, with no profile from before."""

    def __init__(self, folder: Path, *, font_size: int = 16) -> None:
        self.downloads = folder / "downloads"
        options = webdriver.ChromeOptions()
        for argument in (
            "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
            "disable-background-networking", "disable-component-update", "disable-sync",
            f"user-data-dir={folder / 'profile'}",
        ):  # fmt: skip
            options.add_argument(f"--{argument}")
        options.add_experimental_option("prefs", {"webkit.webprefs.default_font_size": font_size})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.look()

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def look(self, width: int = 1280, scheme: str = "light") -> None:
        """Take a width in CSS pixels and a colour scheme."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )  # fmt: skip
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        self.driver.get(url)

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    @property
    def heading(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "h1").text

    @property
    def focused(self) -> webdriver.remote.webelement.WebElement:
        return self.driver.switch_to.active_element

    def press(self, *keys: str) -> None:
        self.focused.send_keys(*keys)

    def leaves(self, act: Callable[[], None]) -> None:
        """Do what leads to another page, and wait for it."""
        self.driver.execute_script("window.before = true")
        act()
        ready = "return document.readyState === 'complete' && !window.before"
        within(30, lambda: bool(self.driver.execute_script(ready)))

    def tab_to(self, name: str) -> None:
        """Press the Tab key until what has the focus is called so."""
        for _ in range(400):
            self.press(Keys.TAB)
            if self.focused.accessible_name == name:
                return
        raise AssertionError(f"no way to {name} with the Tab key")

    def sign_in(self, url: str, token: str) -> None:
        self.open(f"{url}/catalogue")
        self.leaves(lambda: self.press(token, Keys.ENTER))
        assert "Sign out" in self.text

    def downloaded(self, name: str) -> bytes:
        path = self.downloads / name
        within(30, lambda: path.exists() and not list(self.downloads.glob("*.crdownload")))
        return path.read_bytes()

    def complaints(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [str(line["message"]) for line in self._log("browser")]

    def _log(self, name: str) -> list[dict[str, Any]]:
        driver: Any = self.driver  # its logs have no types
        return list(driver.get_log(name))

    def asked_hosts(self) -> set[str]:
        """The hosts and ports that pages made the browser ask."""
        events = [json.loads(line["message"])["message"] for line in self._log("performance")]
        urls = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
        return {httpx.URL(url).netloc.decode() for url in urls if url.startswith("http")}

    def has_dialog(self) -> bool:
        try:
            self.driver.switch_to.alert.dismiss()
        except NoAlertPresentException:
            return False
        return True


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    assert Path(DRIVER).exists(), f"{DRIVER} is not there: install chromium and chromium-driver"
    started = Browser(tmp_path)
    yield started
    started.driver.quit()


def pages(site: Site) -> list[str]:
    paths = [
        "",
        "?name=zzz",
        "/artifact?name=churn",
        f"/version/{site.version}",
        f"/version/{site.evil}",
        "/tokens",
        "/audit",
    ]
    paths += ["/audit?client=nobody", "/storage", f"?tag={EVIL}"]
    return [*(f"{site.models}/catalogue{path}" for path in paths), f"{site.datasets}/catalogue/version/1"]


def test_everything_a_vendor_needs_by_keyboard_alone(browser: Browser, site: Site) -> None:
    browser.open(f"{site.models}/catalogue")
    assert browser.heading == "Sign in"
    browser.leaves(lambda: browser.press("nonsense", Keys.ENTER))
    assert "The token is unknown." in browser.text
    browser.leaves(lambda: browser.press(site.vendor, Keys.ENTER))
    assert browser.heading == "Models"
    assert "segment" not in browser.text
    browser.press(Keys.TAB)
    assert browser.focused.accessible_name == "Skip to content"
    browser.press(Keys.ENTER)
    assert browser.focused.get_attribute("id") == "main"
    browser.tab_to("Name contains")
    browser.leaves(lambda: browser.press("CHU", Keys.ENTER))
    browser.tab_to("Status")
    browser.press("stag")
    browser.tab_to("Search")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert "state=staging" in browser.driver.current_url
    browser.tab_to("churn")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert browser.heading == "churn"
    assert "@champion" in browser.text
    assert "deleted" not in browser.text
    browser.tab_to("1.0.1")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert "40.8 J and 3.90 mg CO₂e in all" in browser.text
    browser.tab_to("Download file, 1.00 MiB")
    browser.press(Keys.ENTER)
    assert hashlib.sha256(browser.downloaded("churn_1.0.1.tar")).digest() == hashlib.sha256(MODEL).digest()
    browser.tab_to("Audience, run and key of the evidence")
    assert "20261123T093000Z-7f3a" not in browser.text
    browser.press(Keys.ENTER)
    assert "20261123T093000Z-7f3a" in browser.text
    browser.driver.refresh()
    browser.tab_to("Sign out")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert browser.heading == "Sign in"
    browser.open(f"{site.models}/catalogue/version/{site.version}")
    assert browser.heading == "Sign in"
    browser.driver.back()
    assert "churn" not in browser.text
    assert [each for each in browser.complaints() if "401" not in each] == []
    assert browser.asked_hosts() == {site.models.removeprefix("http://")}


def test_what_an_admin_needs(browser: Browser, site: Site) -> None:
    browser.sign_in(site.models, site.admin)
    browser.tab_to("Next page")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert "segment-51" in browser.text
    browser.tab_to("Tokens")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert "soon" in browser.text
    assert site.vendor not in browser.driver.page_source
    browser.tab_to("Audit")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    browser.tab_to("Verify the chain")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert "intact" in browser.text
    browser.tab_to("Export all lines")
    browser.press(Keys.ENTER)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    lines = [json.loads(line) for line in browser.downloaded(f"audit-{day}.jsonl").splitlines()]
    assert [line["id"] for line in lines] == list(range(1, len(lines) + 1))
    browser.tab_to("Storage")
    browser.leaves(lambda: browser.press(Keys.ENTER))
    assert "0 B of 1.00 MiB received" in browser.text
    browser.open(f"{site.models}/catalogue/artifact?name=churn")
    assert "deleted" in browser.text
    assert browser.complaints() == []


@pytest.mark.parametrize(  # 640: a window of 1280 at 200 %
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (640, "light"), (320, "light"), (320, "dark")]
)
def test_every_page_can_be_read(browser: Browser, site: Site, width: int, scheme: str) -> None:
    browser.look(width, scheme)
    browser.open(f"{site.models}/catalogue")
    assert browser.driver.execute_script(CHECKS) == []
    for url in (site.datasets, site.models):
        browser.sign_in(url, site.admin)
    for url in pages(site):
        browser.open(url)
        browser.driver.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
        assert browser.driver.execute_script(CHECKS) == [], url
    assert browser.complaints() == []
    browser.open(f"{site.models}/catalogue/nowhere")
    assert browser.heading == "Not Found"
    assert browser.driver.execute_script(CHECKS) == []


def test_text_of_twice_the_size_fits(tmp_path: Path, site: Site) -> None:
    browser = Browser(tmp_path, font_size=32)
    for url in (site.datasets, site.models):
        browser.sign_in(url, site.admin)
    for url in pages(site):
        browser.open(url)
        assert browser.driver.execute_script(CHECKS) == [], url
    browser.driver.quit()


def test_whatever_has_the_focus_is_seen_to_have_it(browser: Browser, site: Site) -> None:
    browser.sign_in(site.models, site.admin)
    browser.open(f"{site.models}/catalogue/version/{site.version}")
    names: list[str] = []
    places: set[str] = set()
    while True:
        browser.press(Keys.TAB)
        focused = browser.focused
        if focused.tag_name == "body" or focused.id in places:
            break
        places.add(focused.id)
        names.append(focused.accessible_name)
        outline = [focused.value_of_css_property(f"outline-{each}") for each in ("style", "width")]
        assert outline == ["solid", "3px"], names[-1]
    assert names[0] == "Skip to content"
    assert {"Sign out", "Record as JSON", "Audit lines of this version"} <= set(names)


def test_script_in_every_field_does_nothing(browser: Browser, site: Site) -> None:
    for url in (site.datasets, site.models):
        browser.sign_in(url, site.admin)
    for url in pages(site):
        browser.open(url)
        assert not browser.has_dialog()
        assert browser.complaints() == [], url
    browser.open(f"{site.models}/catalogue/version/{site.evil}")
    assert browser.text.count(EVIL) >= 12
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "script, [onerror], [onload], a[href^=javascript]")


def test_the_browser_obeys_the_policy(browser: Browser, site: Site) -> None:
    browser.sign_in(site.models, site.admin)
    browser.driver.execute_script(
        "const it = document.createElement('script'); it.textContent = 'window.ran = true'; document.body.append(it);"
        "const image = document.createElement('img'); image.src = 'http://127.0.0.1:1/x'; document.body.append(image);"
    )
    assert browser.driver.execute_script("return window.ran") is None
    assert sum("Content Security Policy" in each for each in browser.complaints()) == 2
    assert browser.driver.execute_script("return document.cookie") == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # the same site, as ports do not count, and another
def test_another_sites_form_does_nothing(browser: Browser, site: Site, host: str, tmp_path: Path) -> None:
    browser.sign_in(site.models, site.admin)
    field = browser.driver.find_element(By.NAME, "form_token")
    (tmp_path / "attack.html").write_text(
        f'<form method="post" action="{site.models}/catalogue/logout"><input name="form_token" '
        f'value="{field.get_attribute("value")}"></form><script>document.forms[0].submit()</script>'
    )
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as attacker:
        threading.Thread(target=attacker.serve_forever).start()
        browser.open(f"http://{host}:{attacker.server_port}/attack.html")
        within(30, lambda: browser.driver.title.startswith("403"))
        attacker.shutdown()
    browser.open(f"{site.models}/catalogue")
    assert browser.heading == "Models"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
