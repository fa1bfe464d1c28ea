"""The site in a real browser, from disk: it sorts, filters, explains, and asks nobody anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
if BROWSER is None:
    pytest.skip(
        "no browser is installed: apt-get install chromium, and the site is tested in it",
        allow_module_level=True,
    )
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives it")

TABLE = "tables/native_structure_cifar10_ten_epochs.html"
RUN = "runs/cifar10_resnet20_adabin_task_unified_s0_09feba16.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


class Reader:
    """A person at a page of the site; complaints are errors on the console, requests elsewhere."""

    def __init__(self, browser: Any, out: Path, **looks: Any) -> None:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | looks))
        self.page, self.out = context.new_page(), out
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.out.as_uri(), "data:")):
            self.complaints.append(f"asked {request.url}")

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # left before it was loaded
            self.complaints.append(f"{request.url}: {request.failure}")

    def open(self, address: str) -> Any:
        self.page.goto(f"{self.out.as_uri()}/{address}")
        return self.page

    def column(self, title: str) -> list[str]:
        """The texts of a column of the table as it stands, top to bottom.

        A click puts sorting off to a timer, behind which the one here stands.
        """
        return self.page.evaluate(
            """async (title) => {
                await new Promise((done) => setTimeout(done, 0));
                const heads = [...document.querySelectorAll("table.grid thead th")];
                const at = heads.findIndex((head) => head.innerText.trim() === title);
                return [...document.querySelectorAll("table.grid tbody tr:not(.dtrg-group)")]
                    .map((row) => row.cells[at].innerText.trim());
            }""",
            title,
        )


@pytest.fixture
def reader(browser, committed) -> Iterator[Reader]:
    found = Reader(browser, committed[0])
    yield found
    found.page.context.close()
    assert found.complaints == []


def numbers(texts: list[str]) -> list[float]:
    return [float(found[0]) for text in texts if (found := re.match(r"[\d.]+", text))]


def head(page: Any, title: str) -> Any:
    return page.locator("table.grid thead th", has_text=title).first


def test_a_table_sorts_within_what_is_comparable(reader) -> None:
    page = reader.open(TABLE)
    title = "accuracy % (last epoch)"
    sets = page.evaluate(
        """() => {
            const found = [];
            for (const row of document.querySelectorAll("table.grid tbody tr")) {
                if (row.classList.contains("dtrg-group")) found.push([]);
                else found[found.length - 1].push(row.cells[0].innerText);
            }
            return found.filter((rows) => rows.length).map((rows) => rows.sort());
        }"""
    )
    before = reader.column(title)
    head(page, title).click()
    after = reader.column(title)
    assert sorted(before) == sorted(after)
    start = 0
    for members in sets:  # the sets stay where they were, each sorted in itself
        part = numbers(after[start : start + len(members)])
        assert part == sorted(part, reverse=True)
        assert sorted(reader.column("quantizer")[start : start + len(members)]) == members
        start += len(members)
    assert len(sets) > 3
    assert head(page, title).get_attribute("aria-sort") == "descending"


def test_it_sorts_by_keyboard(reader) -> None:
    page = reader.open("runs.html")
    page.locator("input[type=search]").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if "score" in page.evaluate("document.activeElement.closest('th')?.innerText ?? ''"):
            break
    page.keyboard.press("Enter")
    scores = numbers(reader.column("score %"))
    following = page.locator(".dt-paging button.next:not(.disabled)")
    while following.count():  # the whole list is sorted, not the part of it that is shown
        following.click()
        scores += numbers(reader.column("score %"))
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 100


def test_filters_narrow_rows_and_stand_in_the_address(reader) -> None:
    page = reader.open("index.html")
    assert page.locator("select[name=dataset]").input_value() == "cifar10"
    page.locator("select[name=kind]").select_option("measured")
    page.locator("select[name=bits]").select_option("1/1")
    page.locator("input[type=search]").fill("adabin")
    shown = page.locator(".count").inner_text()
    assert set(reader.column("method")) == {"adabin"}
    assert set(reader.column("kind")) == {"measured"}
    assert "bits=1%2F1" in page.url
    assert "kind=measured" in page.url
    address = page.url.rpartition("/")[2]
    reader.open("tables.html")
    page = reader.open(address)
    assert page.locator(".count").inner_text() == shown
    assert page.locator("select[name=kind]").input_value() == "measured"
    page.locator(".reset").click()
    assert page.locator("select[name=kind]").input_value() == ""
    assert len(reader.column("method")) > 50


def test_all_data_sets_survive_a_reload(reader) -> None:
    page = reader.open("index.html")
    page.locator("select[name=dataset]").select_option("")
    everything = page.locator(".count").inner_text()
    page.reload()
    assert page.locator("select[name=dataset]").input_value() == ""
    assert page.locator(".count").inner_text() == everything


def test_addresses_typed_wrong_are_survived(reader) -> None:
    for hash_ in ("dataset=nothing&bits=%00", "sort=99.desc+x.y", "columns=99.-1.x", "%E0%A4%A"):
        page = reader.open(f"index.html?{len(hash_)}#{hash_}")
        assert page.locator("table.grid tbody tr").count() > 10


def test_columns_are_hidden_and_shown(reader) -> None:
    page = reader.open("index.html")
    assert head(page, "params M").count() == 0
    page.locator(".columns summary").click()
    page.get_by_role("checkbox", name="params M").check()
    page.get_by_role("checkbox", name="CPU ms").uncheck()
    assert head(page, "params M").count() == 1
    assert head(page, "CPU ms").count() == 0
    page.reload()
    assert head(page, "params M").count() == 1
    assert head(page, "CPU ms").count() == 0


def test_rows_of_other_bits_or_structure_stand_apart(reader) -> None:
    page = reader.open("index.html#dataset=cifar10&kind=measured")
    groups = page.locator(".dtrg-level-0").all_inner_texts()
    assert len(set(groups)) == len(groups)
    assert any("1/1 bits" in text and "10 epochs" in text for text in groups)
    assert any("32/32 bits" in text for text in groups)
    assert page.locator(".dtrg-level-1").count() > len(groups)


def test_hints_explain_marks_by_pointer_and_by_keyboard(reader) -> None:
    page = reader.open("index.html#dataset=cifar10&kind=published")
    mark = page.locator(".mark.unverified").first
    mark.hover()
    assert "recalled" in page.locator("#tip").inner_text()
    page.mouse.move(5, 5)
    assert page.locator("#tip").is_hidden()
    mark.focus()
    assert "at its source" in page.locator("#tip").inner_text()
    assert mark.get_attribute("aria-describedby") == "tip"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_the_chart_follows_filters_axes_and_links(reader) -> None:
    page = reader.open("index.html#dataset=cifar10")
    points = page.locator("figure.chart circle")
    everything = points.count()
    assert everything > 40
    page.locator("select[name=backbone]").select_option("resnet20")
    assert 10 < points.count() < everything
    page.locator("input[name=cost][value=ms]").check(force=True)
    assert "ms an image" in page.locator("figure.chart .panels").inner_text()
    assert 1 < points.count() < everything
    points.first.hover()
    hint = page.locator("#tip").inner_text()
    assert " bits: " in hint
    assert " ms" in hint
    link = page.locator("figure.chart a").first
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*.html")
    assert page.locator("h1").inner_text().startswith("cifar10_resnet20")


def test_a_run_is_reached_and_drawn(reader) -> None:
    page = reader.open("index.html#dataset=cifar10&kind=measured&q=adabin")
    page.locator("table.grid tbody td a[href*='runs/']").first.click()
    page.wait_for_url("**/runs/*.html")
    reader.open(RUN)
    assert page.locator(".curve svg").count() == 2
    assert "72.62" in page.locator(".score").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".copy").click()
    playwright.expect(page.locator(".copy")).to_have_text(re.compile("Copied|Selected"))


def test_light_and_dark(reader, browser, committed) -> None:
    def paper(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page = reader.open("index.html")
    assert paper(page) == "rgb(255, 255, 255)"
    page.locator("#theme").click()
    chosen = paper(page)
    assert chosen != "rgb(255, 255, 255)"
    reader.open("tables.html")
    assert paper(page) == chosen  # it is remembered
    dark = Reader(browser, committed[0], color_scheme="dark")
    assert paper(dark.open("index.html")) == chosen
    dark.page.context.close()


@pytest.mark.parametrize(
    "address", ["index.html", TABLE, RUN, "methods/adabin.html", "docs/results.html", "runs.html"]
)
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_screen(browser, committed, address: str, width: int) -> None:
    phone = Reader(browser, committed[0], viewport={"width": width, "height": 844})
    page = phone.open(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()
    assert phone.complaints == []


def test_a_phone_shows_the_columns_that_matter(browser, committed) -> None:
    phone = Reader(browser, committed[0], viewport={"width": 390, "height": 844})
    page = phone.open("index.html")
    heads = [text.strip() for text in page.locator("table.grid thead th").all_inner_texts()]
    assert heads == ["rank", "method", "score %", "OPs"]
    assert not page.locator("select[name=bits]").is_visible()
    page.locator(".toggle").click()
    page.locator("select[name=bits]").select_option("1/1")
    assert "Filters (2)" in page.locator(".toggle").inner_text()
    page.context.close()
    assert phone.complaints == []


@pytest.mark.parametrize(
    ("address", "what"), [("runs.html", "score %"), ("tables/efficiency.html", "x float")]
)
def test_numbers_of_long_names_are_on_a_phones_screen(browser, committed, address, what) -> None:
    phone = Reader(browser, committed[0], viewport={"width": 390, "height": 844})
    page = phone.open(address)
    heads = page.locator("table.grid thead th")
    place = next(n for n, text in enumerate(heads.all_inner_texts()) if what in text)
    box = page.locator("table.grid tbody tr:not(.dtrg-group)").first.locator("td").nth(place)
    assert box.bounding_box()["x"] + 40 <= 390
    page.context.close()


def test_without_scripts_all_is_there(browser, committed) -> None:
    plain = Reader(browser, committed[0], java_script_enabled=False)
    page = plain.open("index.html")
    assert page.locator("table.grid tbody tr").count() > 300
    page.context.close()


def test_html_in_results_is_not_run(browser, world) -> None:
    words = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    for key, method in (("odd", words), ("other", "xnor")):
        acc = 0.9 if key == "odd" else 0.5
        world.run(
            key,
            acc,
            **{"choices.quantizer": method, "choices.loss": words, "choices.dataset": words},
        )
    world.build()
    victim = Reader(browser, world.root / "build/site")
    for address in ("index.html", "runs.html", "runs/odd.html", "methods/index.html"):
        page = victim.open(address)
        page.wait_for_timeout(50)
        assert page.title() != "run"
        assert page.locator("img[src=x]").count() == 0
    page = victim.open("index.html#q=onerror")
    page.locator("figure.chart circle[aria-label^='<img']").hover()
    assert "<img" in page.locator("#tip").inner_text()
    page.context.close()
    assert victim.complaints == []
