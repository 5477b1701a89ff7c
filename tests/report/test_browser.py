"""The gallery as a person meets it: opened from disk in Chromium, by mouse and by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from galleries import HOSTILE, Browser, Gallery
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

PAGES = ["index.html", "pages/page-0001.html", "pages/page-0003.html"]


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(browser: Browser) -> Iterator[None]:
    """No complaint in the console, and no request beyond the gallery's folder, whatever a test does."""
    browser.console()
    browser.requests()
    yield
    assert browser.console() == []
    outside = [url for url in browser.requests() if not url.startswith(("file://", "about:"))]
    assert outside == []
    assert not browser.run("return window.alerted")


def ids(browser: Browser) -> list[str]:
    browser.settle()
    return browser.texts(".card h2")


def choose(browser: Browser, name: str, text: str) -> None:
    Select(browser.find(f"#tools [name={name}]")).select_by_visible_text(text)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", [*PAGES, "pages/page-0001.html#image=hostile"])
def test_every_page_fits_the_window(browser: Browser, gallery: Gallery, page: str, width: int) -> None:
    browser.open(gallery.url(page), width=width)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    parts = "[...document.querySelectorAll('main, .viewer-body, .viewer-facts, .viewer-pictures, .cards, .tools')]"
    assert browser.run(f"return {parts}.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)") == []


@pytest.mark.parametrize(("width", "height", "smallest"), [(1280, 900, 400), (900, 1200, 400), (390, 800, 330)])
def test_the_viewer_shows_label_and_truth_large_and_equal(
    browser: Browser, gallery: Gallery, width: int, height: int, smallest: int
) -> None:
    browser.open(gallery.url("pages/page-0001.html#image=cat_2"), width=width, height=height)
    sizes = browser.run(
        "return [...document.querySelectorAll('#viewer .picture')].map(e => [e.clientWidth, e.clientHeight])"
    )
    assert sizes[0] == sizes[1]
    assert sizes[0][0] >= smallest
    assert sizes[0][0] / sizes[0][1] == pytest.approx(80 / 60, rel=0.01)


def test_names_of_boxes_do_not_hide_each_other(browser: Browser, gallery: Gallery) -> None:
    for width in (1280, 390):
        browser.open(gallery.url("pages/page-0001.html#image=hostile"), width=width)
        browser.wait("return document.querySelectorAll('#viewer .box-name').length === 2")
        browser.run(  # four more at the same corner
            "const names = document.querySelectorAll('#viewer .box-name');"
            "for (let k = 0; k < 4; k += 1) names[0].after(names[k % 2].cloneNode(true));"
            "window.dispatchEvent(new Event('resize'));"
        )
        hidden = (
            "const boxes = [...document.querySelectorAll('#viewer .box-name')].map((e) => e.getBoundingClientRect());"
            "const frame = document.querySelector('#viewer .picture').getBoundingClientRect();"
            "const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1"
            " && b.top < a.bottom - 1;"
            "return [boxes.length, boxes.filter((a, i) => boxes.some((b, k) => k < i && meet(a, b))).length,"
            " boxes.filter((a) => a.top < frame.top - 1 || a.bottom > frame.bottom + 1).length];"
        )
        browser.wait(f"const f = () => {{ {hidden} }}; return f()[0] === 6 && f()[1] === 0")
        assert browser.run(hidden) == [6, 0, 0]


def test_a_wide_table_says_that_it_scrolls(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("index.html"), width=390)
    assert browser.texts("#classes ~ .scroll-hint") == ["Scroll the table sideways for all columns."]
    browser.open(gallery.url("index.html"), width=1280)
    assert browser.texts("#classes ~ .scroll-hint") == [""]


def test_the_overview_counts_and_leads_on(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("index.html"))
    tiles = dict(zip(browser.texts(".tiles dt"), browser.texts(".tiles dd"), strict=True))
    assert (tiles["labelled images"], tiles["boxes"], tiles["failed"]) == ("13", "12", "1")
    assert tiles["images per second after start-up, last session"] == "6.50"
    assert browser.texts(".legend li") == ["ok 11 84.6%", "no detections 1 7.7%", "failed 1 7.7%"]
    assert browser.texts("table.classes tbody th") == ["cat", "dog", HOSTILE]
    assert [row.split()[:2] for row in browser.texts("table.classes tbody tr")][:2] == [["cat", "11"], ["dog", "3"]]
    browser.find(".legend a[href$='failed']").click()
    assert ids(browser) == ["broken"]
    browser.driver.back()
    browser.find("table.classes tr:nth-child(2) a[title*=missed]").click()
    assert ids(browser) == ["missed", "nothing", "broken"]
    browser.driver.back()
    browser.find("#audit ~ ol li a").click()
    browser.wait("return document.querySelector('#viewer').open")


def test_secrets_stay_out_of_the_overview(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("index.html"))
    browser.find("#settings ~ details summary").click()
    settings = dict(zip(browser.texts(".settings dt"), browser.texts(".settings dd"), strict=True))
    assert settings["detector.box_threshold"] == "0.3"
    assert settings["segmenter.model"] == HOSTILE
    assert settings["segmenter.api_key"] == "(hidden)"
    assert "hush" not in browser.driver.page_source


def test_pages_turn_by_keyboard(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0001.html"))
    assert ids(browser) == [f"cat_{index}" for index in range(5)]
    assert browser.find("#result").text == "Images 1 to 5 of 13"
    browser.press(Keys.ARROW_RIGHT)
    assert ids(browser) == ["cat_5", "cat_6", "cat_7", "cat_8", "hostile"]
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert ids(browser) == ["missed", "nothing", "broken"]
    assert browser.driver.current_url.endswith("#page=3")
    browser.press(Keys.ARROW_LEFT)
    assert browser.find("#result").text == "Images 6 to 10 of 13"
    browser.find("#pages [data-to=next]").click()
    assert browser.run("return document.activeElement === document.body")  # the last page has no next one
    assert browser.find("#result").text == "Images 11 to 13 of 13"


def test_a_page_of_its_own_shows_its_own_images(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0002.html"))
    assert ids(browser)[0] == "cat_5"
    browser.find("#pages [data-to=first]").click()
    assert ids(browser)[0] == "cat_0"


def test_filters_and_sorting_are_over_all_images(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0001.html"))
    choose(browser, "sort", "IoU, lowest first")
    assert ids(browser) == ["cat_8", "cat_7", "cat_6", "cat_5", "cat_4"]
    choose(browser, "sort", "IoU, highest first")
    assert ids(browser) == ["cat_0", "cat_1", "cat_2", "cat_3", "cat_4"]
    choose(browser, "sort", "audit rank")
    assert ids(browser)[0] == "broken"
    choose(browser, "class", "dog")
    assert ids(browser) == ["broken", "missed", "nothing"]
    choose(browser, "status", "no detections")
    assert ids(browser) == ["nothing"]
    assert browser.find("#result").text == "Images 1 to 1 of 1 (13 without filters)"
    choose(browser, "has", "tagged and found")
    assert browser.texts(".card") == []
    assert "No image matches" in browser.find(".empty").text
    browser.find("#tools [type=reset]").click()
    browser.wait("return document.querySelectorAll('.card').length === 5")
    choose(browser, "class", HOSTILE)
    assert ids(browser) == ["hostile"]
    browser.find("#tools [type=reset]").click()
    choose(browser, "reason", "low mask score")
    assert ids(browser) == ["hostile"]
    browser.find("#tools [type=reset]").click()
    browser.press("/", "CAT_7")
    browser.wait("return document.querySelectorAll('.card').length === 1")
    assert ids(browser) == ["cat_7"]


def test_images_are_filtered_by_iou_and_audit_rank(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0001.html"))
    index = browser.run("return gallery.images.map(r => Object.fromEntries(gallery.fields.map((f, i) => [f, r[i]])))")
    choose(browser, "below", "70%")
    low = [row["id"] for row in index if row["iou"] is not None and row["iou"] < 0.7]
    assert 0 < len(low) < 9
    assert ids(browser) == low[:5]
    assert browser.driver.current_url.endswith("#below=70")
    choose(browser, "below", "90%")
    assert browser.find("#result").text.endswith("of 7 (13 without filters)")  # (50 - 4 k) / 50 and its background
    choose(browser, "class", "cat")  # now by the class's own IoU
    assert ids(browser) == ["cat_2", "cat_3", "cat_4", "cat_5", "cat_6"]
    browser.find("#tools [type=reset]").click()
    browser.wait("return document.querySelectorAll('.card').length === 5")
    choose(browser, "ranked", "any ranked")
    ranked = [row["id"] for row in index if row["rank"] is not None]
    assert 0 < len(ranked) < 13
    assert ids(browser) == ranked[:5]
    for name, text in (("below", "IoU below"), ("ranked", "Audit rank")):
        assert browser.find(f"#tools [name={name}]").accessible_name == text
    browser.open(gallery.url("pages/page-0001.html#below=50&ranked=20"))
    assert [Select(browser.find(f"#tools [name={n}]")).first_selected_option.text for n in ("below", "ranked")] == [
        "50%",
        "first 20",
    ]


def test_ranks_are_counted_from_the_first(browser: Browser, gallery: Gallery, tmp_path: Path) -> None:
    shutil.copytree(gallery.path, tmp_path / "site")
    data = tmp_path / "site/data/index.js"
    column = "gallery.fields.indexOf('rank')"
    changed = (
        f"gallery.images.forEach((row, i) => {{ row[{column}] = i ? 11 * i - 2 : null; }});\n"  # 9, 20, 31 ... 130
    )
    data.write_text(data.read_text() + changed)
    browser.open(f"file://{tmp_path}/site/pages/page-0001.html#ranked=20")
    assert ids(browser) == ["cat_1", "cat_2"]
    choose(browser, "ranked", "first 100")
    assert browser.find("#result").text == "Images 1 to 5 of 9 (13 without filters)"
    choose(browser, "ranked", "any ranked")
    assert browser.find("#result").text == "Images 1 to 5 of 12 (13 without filters)"


def test_filters_are_shown_only_where_the_data_has_their_values(
    browser: Browser, gallery: Gallery, tmp_path: Path
) -> None:
    browser.open(gallery.url("pages/page-0001.html"))
    assert all(browser.find(f"#{name}-field").is_displayed() for name in ("below", "ranked"))
    shutil.copytree(gallery.path, tmp_path / "site")
    data = tmp_path / "site/data/index.js"
    bare = "{ row[at('rank')] = null; row[at('iou')] = null; row[at('classIou')] = []; }"
    changed = (
        f"(() => {{ const at = (n) => gallery.fields.indexOf(n); for (const row of gallery.images) {bare} }})();\n"
    )
    data.write_text(data.read_text() + changed)
    browser.open(f"file://{tmp_path}/site/pages/page-0001.html#below=50&ranked=20")
    assert not any(browser.find(f"#{name}-field").is_displayed() for name in ("below", "ranked"))
    assert browser.find("#result").text == "Images 1 to 5 of 13"  # what cannot be chosen filters nothing


def test_a_view_can_be_linked_to(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0001.html#class=cat&sort=iou&page=2"))
    assert ids(browser)[:4] == ["cat_3", "cat_2", "cat_1", "cat_0"]
    assert Select(browser.find("#tools [name=class]")).first_selected_option.text == "cat"
    browser.run("location.hash = 'status=failed'")
    browser.wait("return document.querySelectorAll('.card').length === 1")
    assert ids(browser) == ["broken"]


def test_the_viewer_by_keyboard(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0001.html"))
    browser.run("document.querySelector('#image-cat_4 a').focus()")
    browser.press(Keys.ENTER)
    browser.wait("return document.querySelector('#viewer-facts table')")
    assert browser.find("#viewer-title").text == "cat_4"
    assert browser.find("#viewer-position").text == "5 of 13"
    assert browser.texts("#viewer figcaption") == ["Label", "Truth"]
    assert browser.texts(".viewer .box-name") == ["cat 0.70"]
    assert "#image=cat_4" in browser.driver.current_url
    browser.press(Keys.ARROW_RIGHT)  # over the end of the page
    assert browser.find("#viewer-title").text == "cat_5"
    for key, selector in (("l", "#viewer .overlay"), ("b", "#viewer .boxes"), ("t", "#viewer .truth")):
        assert browser.find(selector).is_displayed()
        browser.press(key)
        assert not browser.find(selector).is_displayed()
        browser.press(key)
    browser.press(Keys.ESCAPE)
    assert not browser.run("return document.querySelector('#viewer').open")
    browser.wait("return document.activeElement.closest('#image-cat_5')")
    assert browser.find("#result").text == "Images 6 to 10 of 13"


def test_boxes_tags_and_reasons_of_an_image(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0001.html#image=hostile"))
    browser.wait("return document.querySelector('#viewer-facts table')")
    facts = browser.find("#viewer-facts").text
    assert f"{HOSTILE}: SAM predicts an IoU below 0.7 for 1 of 1 masks, lowest 0.40" in facts
    assert browser.texts("#viewer-facts .tags li") == ["cat\nfound", f"{HOSTILE}\nfound"]
    rows = browser.texts("#viewer-facts table:last-of-type tbody tr")
    assert rows[0].split() == ["1", "cat", "(“kitten”)", "0.80", "0.90"]
    assert browser.texts(".viewer .box-name") == ["cat 0.80", f"{HOSTILE} 0.80"]
    browser.driver.find_elements("css selector", "#viewer-facts td button")[1].click()
    shown = browser.run("return [...document.querySelectorAll('.viewer .box-name')].map(e => e.checkVisibility())")
    assert shown == [False, True]
    browser.press(Keys.ARROW_RIGHT)
    browser.wait("return document.querySelector('#viewer-title').textContent === 'missed'")
    browser.wait("return document.querySelector('#viewer-facts li')")
    assert browser.texts("#viewer-facts .tags li") == ["cat\nfound", "dog\nmissed"]


def test_a_failed_image_says_why(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0003.html"))
    browser.wait("return document.querySelector('#image-broken .problem')")
    assert browser.find("#image-broken .problem").text == f"segment: {HOSTILE}"
    assert browser.find("#image-broken .status").text == "failed"


def test_pages_read_without_scripts(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0002.html"), scripts=False)
    assert browser.texts(".card h2") == ["cat_5", "cat_6", "cat_7", "cat_8", "hostile"]
    assert not browser.find("#tools").is_displayed()
    assert browser.find("noscript p").is_displayed()
    assert f"{HOSTILE} 0.80" in browser.texts("#image-hostile .box-list li")
    assert browser.find("#image-hostile rect").is_displayed()
    browser.find("a[rel=next]").click()
    assert browser.texts(".card h2") == ["missed", "nothing", "broken"]


def test_pictures_are_there_and_described(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0002.html"))
    browser.wait("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    alts = browser.run("return [...document.querySelectorAll('#image-hostile img')].map(image => image.alt)")
    assert alts == ["Photo hostile", f"Label: cat 42%, {HOSTILE} 1%"]
    assert browser.run("return [...document.images].every(image => image.hasAttribute('alt'))")
    assert browser.run("return document.documentElement.lang") == "en"


CONTRASTS = """
const number = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const [r, g, b, a = 1] = number(getComputedStyle(e).backgroundColor);
    if (a > 0.5) return [r, g, b].map((value) => a * value + (1 - a) * 255);  // at worst over a white photo
  }
  return [255, 255, 255];
};
const low = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.disabled || !element.checkVisibility()) continue;
  if (element.closest(".visually-hidden, svg, option")) continue;
  const [one, other] = [light(number(getComputedStyle(element).color)), light(behind(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const told = `${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}`;
  if (contrast < 4.5) low.push(`${told}: ${contrast.toFixed(2)}`);
}
return low;
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", ["index.html", "pages/page-0003.html", "pages/page-0001.html#image=hostile"])
def test_text_stands_out(browser: Browser, gallery: Gallery, page: str, dark: bool) -> None:
    browser.open(gallery.url(page), dark=dark)
    assert browser.run(CONTRASTS) == []


def test_everything_is_reached_by_tab_and_shows_it(browser: Browser, gallery: Gallery) -> None:
    browser.open(gallery.url("pages/page-0001.html"))
    reached = []
    focus = (
        "const focus = document.activeElement; if (focus === document.body) return ['', true];"
        "const name = focus.name || focus.dataset.to || focus.className || focus.textContent;"
        "return [name, getComputedStyle(focus).outlineStyle !== 'none'];"
    )
    for _ in range(40):
        browser.press(Keys.TAB)
        reached.append(browser.run(focus))
    names = [name for name, _ in reached]
    for name in (
        "class",
        "has",
        "status",
        "reason",
        "ranked",
        "below",
        "sort",
        "find",
        "label",
        "opacity",
        "boxes",
        "truth",
        "next",
    ):
        assert name in names
    assert names.count("pictures") >= 5
    assert [name for name, shown in reached if not shown] == []
