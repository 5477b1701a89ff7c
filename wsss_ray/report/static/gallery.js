// The gallery's pages: filters, sorting, viewer and keyboard. They must work from disk, where `fetch` does not, so data
// is loaded as scripts (data/index.js, data/units/*.js). Data is inserted as text, never as markup.
"use strict";

(() => {
  const root = document.documentElement.dataset.root;
  const find = (selector) => document.querySelector(selector);
  const tools = find("#tools");
  const field = tools.elements;
  const cards = find("#cards");
  const viewer = find("#viewer");
  const PHOTO = 1, LABEL = 2, TRUTH = 4;
  const KEYS = ["class", "has", "status", "reason", "below", "ranked", "sort", "find"];
  const VIEW_TYPES = ["checkbox", "range"];
  const MANY_BOXES = 8;

  const images = gallery.images.map((row, order) => {
    const image = { order };
    gallery.fields.forEach((name, column) => { image[name] = row[column]; });
    image.labelled = new Map(pairs(image.shares));
    image.classIou = new Map(pairs(image.classIou));
    return image;
  });
  const byId = new Map(images.map((image) => [image.id, image]));
  const hasTruth = images.some((image) => image.files & TRUTH);
  const hasIou = images.some((image) => image.iou !== null || image.classIou.size > 0);
  const hasRanks = images.some((image) => image.rank !== null);

  let page = Number(location.pathname.match(/page-(\d+)\.html$/)?.[1] ?? 1);
  let chosen = images;
  let opened = null;

  // Small helpers

  function pairs(flat) {
    const result = [];
    for (let index = 0; index < flat.length; index += 2) result.push([flat[index], flat[index + 1]]);
    return result;
  }

  function make(tag, properties, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties ?? {})) {
      if (name in element && name !== "role") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function draw(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  const count = (number) => number.toLocaleString("en");
  const percent = (share) => `${Math.round(100 * share)}%`;
  const words = (kind) => kind.replaceAll("_", " ");
  const className = (classIndex) => (classIndex < 0 ? "background" : gallery.classes[classIndex]);

  // Load the details of a unit's images from a script of its own, when they are first needed.

  const loading = new Map();

  function details(image) {
    const name = gallery.units[image.unit];
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve, reject) => {
        const script = make("script", { src: `${root}data/units/${name}.js` });
        script.onload = () => resolve(galleryUnits[name]);
        script.onerror = () => reject(new Error(`data/units/${name}.js cannot be loaded`));
        document.head.append(script);
      }));
    }
    return loading.get(name).then((unit) => unit[image.id]);
  }

  // Filter and sort the images

  function choose() {
    const wanted = field.class.value === "" ? null : Number(field.class.value);
    const has = field.has.value;
    const status = field.status.value === "" ? null : Number(field.status.value);
    const reason = field.reason.value;
    const below = field.below.value === "" ? null : Number(field.below.value) / 100;
    const ranked = field.ranked.value;
    const text = field.find.value.trim().toLowerCase();
    const iou = (image) => (wanted === null ? image.iou : image.classIou.get(wanted) ?? null);

    const inSet = {
      "": (image, classIndex) => image.tags.includes(classIndex) || image.labelled.has(classIndex),
      tagged: (image, classIndex) => image.tags.includes(classIndex),
      found: (image, classIndex) => image.tags.includes(classIndex) && !image.missed.includes(classIndex),
      missed: (image, classIndex) => image.missed.includes(classIndex),
      labelled: (image, classIndex) => image.labelled.has(classIndex),
    }[has];
    const some = {
      "": () => true,
      tagged: (image) => image.tags.length > 0,
      found: (image) => image.tags.length > image.missed.length,
      missed: (image) => image.missed.length > 0,
      labelled: (image) => image.labelled.size > 0,
    }[has];

    chosen = images.filter((image) =>
      (wanted === null ? some(image) : inSet(image, wanted))
      && (status === null || image.status === status)
      && (reason === "" || (reason === "any" ? image.reasons.length > 0 : image.reasons.includes(Number(reason))))
      && (below === null || (iou(image) !== null && iou(image) < below))
      && (ranked === "" || (image.rank !== null && (ranked === "any" || image.rank <= Number(ranked))))
      && (text === "" || image.id.toLowerCase().includes(text)));

    const keys = {
      rank: (image) => image.rank,
      iou,
      "iou-high": (image) => (iou(image) === null ? null : -iou(image)),
      boxes: (image) => (image.boxes === null ? null : -image.boxes),
    };
    const key = keys[field.sort.value];
    if (key) {
      const last = (value) => (value === null ? Infinity : value);
      chosen.sort((one, other) => (last(key(one)) - last(key(other)) || 0) || one.order - other.order);
    } else if (field.sort.value === "id") {
      chosen.sort((one, other) => (one.id < other.id ? -1 : one.id > other.id ? 1 : 0));
    }
  }

  const pageCount = () => Math.max(1, Math.ceil(chosen.length / gallery.perPage));

  // Pictures

  function labelText(image) {
    const shares = [...image.labelled].map(([index, share]) => `${className(index)} ${percent(share / 1000)}`);
    return `Label: ${shares.join(", ") || "background alone"}`;
  }

  function picture(image, kind, folder) {
    const frame = make("span", { className: kind === "truth" ? "picture truth" : "picture" });
    const add = (className, src, alt) => {
      const size = { width: image.width, height: image.height, loading: "lazy", decoding: "async" };
      const shown = make("img", { className, alt, ...size });
      shown.src = root + src;  // `src` starts the download, so `loading` must be set before it
      frame.append(shown);
    };
    if (image.files & PHOTO) add("photo", `${folder}/${image.id}.jpg`, kind === "truth" ? "" : `Photo ${image.id}`);
    else frame.classList.add("none");
    if (kind === "truth") add("overlay", `truths/${image.id}.png`, "Truth");
    else if (image.files & LABEL) add("overlay", `labels/${image.id}.png`, labelText(image));
    return frame;
  }

  function rectangle(kind, [left, top, right, bottom]) {
    const size = { width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
    return draw("rect", { class: kind, x: left, y: top, ...size });
  }

  // Draw boxes as outlines. With `names` also draw their class and score, or only their number where there are many boxes.
  function drawBoxes(frame, image, detail, { names }) {
    const boxes = detail.boxes ?? [];
    const layer = draw("svg", { class: "boxes", viewBox: `0 0 ${image.width} ${image.height}`, "aria-hidden": "true" });
    const group = (kind, corners) => {
      const both = draw("g", {});
      both.append(rectangle(`${kind} edge`, corners), rectangle(kind, corners));
      layer.append(both);
    };
    for (const [classIndex, , , , ...corners] of boxes) group(`class-${classIndex}`, corners);
    if (names) for (const [, , , ...corners] of detail.disagreements) group("disagreement", corners);
    frame.append(layer);
    if (!names) return;
    boxes.forEach(([classIndex, , score, , left, top], number) => {
      const text = boxes.length > MANY_BOXES ? `${number + 1}` : `${className(classIndex)} ${score.toFixed(2)}`;
      const name = make("span", { className: `box-name class-${classIndex}` }, text);
      name.setAttribute("aria-hidden", "true");  // screen readers use the table of boxes instead
      name.dataset.left = left / image.width;
      name.dataset.top = top / image.height;
      frame.append(name);
    });
    placeNames(frame);
  }

  // Put names at the upper left corners of their boxes, inside the picture. A name that would cover another is moved.
  function placeNames(frame) {
    const [width, height] = [frame.clientWidth, frame.clientHeight];
    const taken = [];
    const names = [...frame.querySelectorAll(".box-name")];
    for (const name of names.sort((one, other) => one.dataset.top - other.dataset.top)) {
      const [wide, high] = [name.offsetWidth, name.offsetHeight];
      const left = Math.max(0, Math.min(width - wide, name.dataset.left * width));
      let top = Math.max(0, Math.min(height - high, name.dataset.top * height));
      const hides = (from) => taken.find((other) => left < other.right && other.left < left + wide
        && from < other.bottom && other.top < from + high);
      const fits = (from) => from >= 0 && from + high <= height && !hides(from);
      if (hides(top)) {
        const candidates = taken.flatMap((other) => [other.bottom, other.top - high]).filter(fits);
        if (candidates.length) {
          top = candidates.reduce((best, from) => (Math.abs(from - top) < Math.abs(best - top) ? from : best));
        }
      }
      taken.push({ left, right: left + wide, top, bottom: top + high });
      name.style.left = `${left}px`;
      name.style.top = `${top}px`;
    }
  }

  function boxTable(frame, detail) {
    const buttons = detail.boxes.map((box, number) => make("button", {
      type: "button", "aria-pressed": "false", "aria-label": `Show box ${number + 1} alone`, onclick: () => alone(number),
    }, `${number + 1}`));
    const alone = (number) => {
      const on = buttons[number].getAttribute("aria-pressed") !== "true";
      frame.classList.toggle("one-box", on);
      const shown = (element, index) => element.classList.toggle("shown", on && index === number);
      frame.querySelectorAll(".box-name").forEach(shown);
      frame.querySelectorAll(".boxes g").forEach(shown);
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(on && index === number)));
    };
    const rows = detail.boxes.map(([classIndex, phrase, score, maskScore], number) => {
      const name = className(classIndex);
      return [buttons[number], phrase === name ? name : `${name} (“${phrase}”)`, score.toFixed(2), maskScore.toFixed(2)];
    });
    return table(["Box", "Class", "Score", "Mask quality"], rows, 2);
  }

  // Cards

  function tagList(image) {
    return make("ul", { className: "tags", "aria-label": "Tags" }, ...image.tags.map((classIndex) => {
      const state = image.missed.includes(classIndex) ? "missed" : "found";
      return make("li", { className: `${state} class-${classIndex}` }, className(classIndex),
        make("span", { className: "visually-hidden" }, ` ${state}`));
    }));
  }

  function facts(image) {
    const wanted = field.class.value === "" ? null : Number(field.class.value);
    const status = gallery.statuses[image.status];
    const parts = [make("span", { className: `status ${status}` }, words(status))];
    const add = (text) => parts.push(make("span", null, text));
    if (wanted !== null && image.classIou.has(wanted)) {
      add(`${className(wanted)} IoU ${percent(image.classIou.get(wanted))}`);
    } else if (image.iou !== null) add(`IoU ${percent(image.iou)}`);
    if (image.rank !== null) add(`audit rank ${count(image.rank)}`);
    if (image.boxes !== null) add(image.boxes === 1 ? "1 box" : `${count(image.boxes)} boxes`);
    return make("p", { className: "facts" }, ...parts);
  }

  function card(image) {
    const label = picture(image, "label", "thumbnails");
    const link = make("a", { className: "pictures", href: `#${stateWith({ image: image.id })}` }, label);
    if (image.files & TRUTH) {
      const truth = picture(image, "truth", "thumbnails");
      truth.append(make("span", { className: "caption" }, "truth"));
      link.append(truth);
    }
    link.addEventListener("click", (event) => {
      event.preventDefault();
      open(image);
    });
    const article = make("article", null, link, make("h2", null, image.id), facts(image));
    if (image.tags.length) article.append(tagList(image));
    details(image).then((detail) => {
      drawBoxes(label, image, detail, { names: false });
      for (const text of detail.problems) article.append(make("p", { className: "problem" }, text));
    }).catch(report);
    return make("li", { className: "card", id: `image-${image.id}` }, article);
  }

  function report(error) {
    find("#result").textContent = `The gallery is incomplete: ${error.message}.`;
  }

  function render() {
    page = Math.min(Math.max(1, page), pageCount());
    const first = (page - 1) * gallery.perPage;
    const shown = chosen.slice(first, first + gallery.perPage);
    cards.replaceChildren(...shown.map(card));
    cards.classList.toggle("pairs", hasTruth);
    if (!shown.length) cards.append(make("li", { className: "empty" }, "No image matches. Reset shows all again."));
    const of = chosen.length === images.length ? "" : ` (${count(images.length)} without filters)`;
    find("#result").textContent = shown.length
      ? `Images ${count(first + 1)} to ${count(first + shown.length)} of ${count(chosen.length)}${of}`
      : `No image matches${of}`;
    renderPages();
  }

  function renderPages() {
    const last = pageCount();
    const item = (text, to, enabled) => make("li", null, make("button", {
      type: "button", disabled: !enabled, onclick: () => goTo(to), "data-to": text.toLowerCase(),
    }, text));
    const number = make("input", { type: "number", min: 1, max: last, value: page, "aria-label": "Page" });
    number.addEventListener("change", () => goTo(Number(number.value) || 1));
    const focused = document.activeElement?.dataset?.to;
    find("#pages ul").replaceChildren(
      item("First", 1, page > 1),
      item("Previous", page - 1, page > 1),
      make("li", { className: "here" }, "Page ", number, ` of ${count(last)}`),
      item("Next", page + 1, page < last),
      item("Last", last, page < last),
    );
    if (focused) find(`#pages [data-to="${focused}"]`)?.focus();
  }

  function goTo(number) {
    page = number;
    save();
    render();
    window.scrollTo(0, 0);
  }

  // Viewer

  function open(image) {
    opened = image;
    const position = chosen.indexOf(image);
    if (position >= 0 && Math.floor(position / gallery.perPage) + 1 !== page) {
      page = Math.floor(position / gallery.perPage) + 1;
      render();
    }
    find("#viewer-title").textContent = image.id;
    find("#viewer-position").textContent = position < 0 ? "" : `${count(position + 1)} of ${count(chosen.length)}`;
    find("#viewer-previous").disabled = position <= 0;
    find("#viewer-next").disabled = position < 0 || position === chosen.length - 1;
    const figures = [figure(image, "label", "Label")];
    if (image.files & TRUTH) figures.push(figure(image, "truth", "Truth"));
    find("#viewer-pictures").replaceChildren(...figures);
    find("#viewer-facts").replaceChildren(facts(image));
    for (const part of [".viewer-body", "#viewer-pictures", "#viewer-facts"]) find(part).scrollTop = 0;
    if (!viewer.open) viewer.showModal();
    layOut();
    save();
    details(image).then((detail) => {
      if (opened !== image) return;
      const frame = figures[0].firstChild;
      drawBoxes(frame, image, detail, { names: true });
      find("#viewer-facts").append(...facetsOf(image, detail, frame));
    }).catch(report);
  }

  function figure(image, kind, caption) {
    const frame = picture(image, kind, "photos");
    frame.style.display = "block";
    frame.style.aspectRatio = `${image.width} / ${image.height}`;
    return make("figure", { className: kind === "truth" ? "truth" : "" }, frame, make("figcaption", null, caption));
  }

  // Show label and truth side by side or stacked, whichever is larger.
  function layOut() {
    if (!opened) return;
    const pictures = find("#viewer-pictures");
    const frames = [...pictures.querySelectorAll(".picture")].filter((frame) => frame.getClientRects().length);
    const style = getComputedStyle(pictures);
    const width = pictures.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = pictures.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    const [gap, caption] = [12, 28];
    const times = frames.length;
    const scale = (across, down) => Math.min(
      (width - gap * (across - 1)) / across / opened.width,
      (height - gap * (down - 1) - caption * down) / down / opened.height,
    );
    const narrow = matchMedia("(max-width: 45rem)").matches;
    pictures.classList.toggle("stacked", scale(1, times) > scale(times, 1));
    const best = Math.max(scale(1, times), scale(times, 1));
    for (const frame of frames) frame.style.width = narrow ? "100%" : `${Math.max(80, Math.floor(best * opened.width))}px`;
    frames.forEach(placeNames);
  }

  function table(heads, rows, numbersFrom) {
    const cell = (tag, text, column) => make(tag, { className: column >= numbersFrom ? "number" : "" }, text);
    return make("table", null,
      make("thead", null, make("tr", null, ...heads.map((head, column) => cell("th", head, column)))),
      make("tbody", null, ...rows.map(
        (row) => make("tr", null, ...row.map((text, column) => cell("td", text, column))))));
  }

  function facetsOf(image, detail, frame) {
    const list = (texts) => make("ul", null, ...texts.map((text) => make("li", null, text)));
    const parts = [make("p", { className: "muted" }, `${image.width} × ${image.height} pixels`)];
    if (detail.problems.length) parts.push(make("h3", null, "Problems"), list(detail.problems));
    if (image.tags.length) parts.push(make("h3", null, "Tags"), tagList(image));
    else parts.push(make("p", { className: "muted" }, "No tags."));
    if (detail.reasons.length) parts.push(make("h3", null, "Audit"), list(detail.reasons.map(([, text]) => text)));
    if (detail.disagreements.length) {
      const text = ([name, kind, other]) => (kind === "sam_only"
        ? `SAM says ${name}, the truth ${other}` : `the truth says ${name}, SAM ${other}`);
      parts.push(make("h3", null, "Human label to check (dashed)"), list(detail.disagreements.map(text)));
    }
    const classIndexes = new Set([...image.labelled.keys(), ...image.classIou.keys()]);
    if (classIndexes.size) {
      const rows = [...classIndexes].map((classIndex) => [
        className(classIndex),
        `${((image.labelled.get(classIndex) ?? 0) / 10).toFixed(1)}%`,
        ...(hasTruth ? [image.classIou.has(classIndex) ? percent(image.classIou.get(classIndex)) : "–"] : []),
      ]);
      parts.push(make("h3", null, "Label"), table(hasTruth ? ["Class", "Share", "IoU"] : ["Class", "Share"], rows, 1));
    }
    if (detail.boxes?.length) {
      parts.push(make("h3", null, "Boxes"), boxTable(frame, detail));
    } else {
      parts.push(make("p", { className: "muted" }, detail.boxes ? "No boxes." : "No boxes: these are predictions."));
    }
    return parts;
  }

  function step(by) {
    const next = chosen[chosen.indexOf(opened) + by];
    if (opened && next) open(next);
  }

  viewer.addEventListener("close", () => {
    const link = opened && document.getElementById(`image-${opened.id}`)?.querySelector("a");
    opened = null;
    save();
    link?.focus();
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  find("#viewer-close").onclick = () => viewer.close();
  find("#viewer-previous").onclick = () => step(-1);
  find("#viewer-next").onclick = () => step(1);

  // The URL fragment holds the state, so that a view can be linked to. Classes, statuses and reasons are stored by name.

  const names = {
    class: gallery.classes, status: gallery.statuses, reason: gallery.kinds,
  };

  function stateWith(more) {
    const state = new URLSearchParams();
    for (const key of KEYS) {
      const value = field[key].value;
      if (value) state.set(key, names[key]?.[Number(value)] ?? value);
    }
    if (page > 1) state.set("page", page);
    for (const [key, value] of Object.entries(more)) state.set(key, value);
    return state;
  }

  function save() {
    const state = stateWith(opened ? { image: opened.id } : {}).toString();
    history.replaceState(null, "", state || page > 1 ? `#${state}` : "#page=1");
  }

  function load() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const key of KEYS) {
      const value = state.get(key) ?? "";
      const index = names[key]?.indexOf(value) ?? -1;
      field[key].value = index >= 0 ? index : value;
      if (field[key].value === "" && field[key].options) field[key].selectedIndex = 0;
    }
    if (state.has("page")) page = Number(state.get("page")) || 1;
    else if (location.hash) page = 1;
    choose();
    render();
    const image = byId.get(state.get("image"));
    if (image) open(image);
    else if (viewer.open) viewer.close();
  }

  // Controls

  function fill(select, texts) {
    texts.forEach((text, index) => select.append(make("option", { value: String(index) }, text)));
  }

  fill(field.class, gallery.classes);
  fill(field.status, gallery.statuses.map(words));
  fill(field.reason, gallery.kinds.map(words));
  find("#reason-field").hidden = !gallery.audited;
  find("#truth-field").hidden = !hasTruth;
  for (const [name, usable] of [["below", hasIou], ["ranked", hasRanks]]) {
    find(`#${name}-field`).hidden = !usable;
    if (!usable) field[name].options.length = 1;  // only the empty choice stays, so that a link cannot select a filter without data
  }
  const unusable = { rank: !gallery.audited, iou: !hasTruth, "iou-high": !hasTruth };
  for (const option of [...field.sort.options]) if (unusable[option.value]) option.remove();

  function show() {
    for (const name of ["label", "boxes", "truth"]) document.body.classList.toggle(`no-${name}`, !field[name].checked);
    document.documentElement.style.setProperty("--label-opacity", field.opacity.value / 100);
    layOut();
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  function changed(event) {
    const chosenFrom = event.target.matches("select");
    if (chosenFrom !== (event.type === "change")) return;  // choices react to `change`, other fields to `input`
    if (VIEW_TYPES.includes(event.target.type)) show();
    else {
      page = 1;
      choose();
      save();
      render();
    }
  }

  tools.addEventListener("change", changed);
  tools.addEventListener("input", changed);
  tools.addEventListener("reset", () => setTimeout(() => {
    page = 1;
    show();
    choose();
    save();
    render();
  }));
  window.addEventListener("hashchange", load);
  window.addEventListener("resize", layOut);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const typing = event.target.matches("select, input:not([type=checkbox]), textarea");
    if (typing) return;
    const toggles = { l: "label", b: "boxes", t: "truth" };
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const by = event.key === "ArrowLeft" ? -1 : 1;
      if (viewer.open) step(by);
      else if (page + by >= 1 && page + by <= pageCount()) goTo(page + by);
      event.preventDefault();
    } else if (toggles[event.key]) {
      field[toggles[event.key]].checked = !field[toggles[event.key]].checked;
      show();
    } else if (event.key === "/" && !viewer.open) {
      field.find.focus();
      event.preventDefault();
    }
  });

  tools.hidden = false;
  show();
  load();
})();
