// Images: what they are, the map of a COW file, files inside.
import { ask, attempt, button, bytes, make, query, say } from "./api.js";

const COLOURS = ["#d9480f", "#1971c2", "#2f9e44", "#9c36b5", "#e8590c", "#0c8599"];

export function images(main) {
  const list = make("tbody");
  main.replaceChildren(make("h2", {}, "Images"), make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...["Name", "Kind", "Size", "On disk"].map((each) => make("th", { scope: "col" }, each)))), list)), comparison());
  attempt(async () => {
    const { images: found, cut } = await ask("/api/images");
    list.replaceChildren(...found.map((each) => make("tr", {},
      make("td", {}, make("a", { href: `#/image/${encodeURIComponent(each.name)}` }, each.name)), make("td", {}, each.kind),
      make("td", { class: "number" }, bytes(each.size)), make("td", { class: "number" }, bytes(each.allocated)))));
    if (cut) say(`only the first ${found.length} images are shown`);
    if (!found.length) say("no images here; 'uml web --images DIR' names another directory");
    for (const select of main.querySelectorAll("select")) select.append(...found.map((each) => make("option", {}, each.name)));
  });
}

function comparison() {
  const result = make("ul", { class: "plain", "aria-live": "polite" });
  const submit = make("button", { type: "submit" }, "Compare");
  const form = make("form", { class: "card", "aria-label": "Compare two images" }, make("h3", {}, "Compare two images"),
    make("label", {}, "From ", make("select", { name: "one" })), make("label", {}, "To ", make("select", { name: "other" })), submit, result);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      say("comparing…");
      const { items, cut } = await ask(`/api/diff?${query(Object.fromEntries(new FormData(form)))}`);
      result.replaceChildren(...items.map((each) => make("li", { class: each.kind }, each.line)));
      say(cut ? `only the first ${items.length} differences are shown` : `${items.length} differences`);
    }, submit);
  });
  return form;
}

export function imagePage(main, name) {
  const parts = make("tbody"), map = make("div");
  main.replaceChildren(make("h2", {}, name), map, make("h3", {}, "Partitions"), make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...["Part", "Filesystem", "Size", "Used", "System"].map((each) => make("th", { scope: "col" }, each)))), parts)));
  say("looking…");
  attempt(async () => {
    const told = await ask(`/api/image/info?${query({ image: name })}`);
    parts.replaceChildren(...told.parts.map((part) => make("tr", {},
      make("td", {}, part.filesystem && !part.trouble ? make("a", { href: `#/browse/${encodeURIComponent(name)}/${part.number ?? ""}/` }, part.number ? `${part.number}` : "whole") : `${part.number ?? "whole"}`),
      make("td", {}, part.trouble ?? [part.filesystem ?? "unknown", part.label].filter(Boolean).join(", ")),
      make("td", { class: "number" }, bytes(part.size)), make("td", { class: "number" }, part.used === null ? "" : bytes(part.used)), make("td", {}, part.system?.name ?? ""))));
    say("");
    if (told.layers.length > 1) await drawMap(map, name);
  });
}

async function drawMap(main, name) {
  const { size, layers, below } = await ask(`/api/image/map?${query({ image: name })}`);
  main.replaceChildren(make("h3", {}, "What is changed where, and by which layer"));
  layers.forEach((layer, index) => {
    const label = `${layer.name}: ${layer.changed} of ${Math.ceil(size / 512)} sectors changed`;
    const canvas = make("canvas", { class: "map", width: layer.cells.length, height: 1, role: "img", "aria-label": label });
    const context = canvas.getContext("2d");
    layer.cells.forEach((held, cell) => {
      if (!held) return;
      context.globalAlpha = 0.25 + 0.75 * (held / 255);
      context.fillStyle = COLOURS[index % COLOURS.length];
      context.fillRect(cell, 0, 1, 1);
    });
    main.append(make("figure", {}, make("figcaption", {}, label), canvas));
  });
  main.append(make("p", {}, `Below: ${below}, which stays as it is. The left end is the beginning of the disk (${bytes(size)}).`));
}

// Files of an image (place: image, partition) or of a machine (place: machine).
export function browse(main, place, path, me, href) {
  const rows = make("tbody");
  const shown = make("div");
  const at = (name) => `${path.replace(/\/$/, "")}/${name}`;
  const crumbs = make("nav", { "aria-label": "Path" }, make("a", { href: href("/") }, "/"));
  let whole = "";
  for (const step of path.split("/").filter(Boolean)) { whole += `/${step}`; crumbs.append(make("a", { href: href(whole) }, step)); }
  main.replaceChildren(make("h2", {}, `Files of ${place.machine ?? place.image}`), crumbs, make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...["Name", "Mode", "Owner", "Size", "Changed", ""].map((each) => make("th", { scope: "col" }, each)))), rows)), shown);
  if (!me.read_only) main.append(uploadForm(place, path, () => browse(main, place, path, me, href)));
  say("looking…");
  attempt(async () => {
    const { items, cut } = await ask(`/api/files?${query({ ...place, path })}`);
    rows.replaceChildren(...items.map((each) => row(each, place, at(each.name), href, shown)));
    say(cut ? `only the first ${items.length} names are shown` : "");
  });
}

function row(each, place, path, href, shown) {
  const file = each.type === "file";
  const name = each.type === "directory" ? make("a", { href: href(path) }, `${each.name}/`)
    : file ? button(each.name, () => view(place, path, shown), { class: "name" }) : `${each.name}${each.target ? ` → ${each.target}` : ""}`;
  return make("tr", {}, make("td", {}, name), make("td", {}, each.mode), make("td", {}, `${each.uid}:${each.gid}`),
    make("td", { class: "number" }, file ? bytes(each.size) : each.type), make("td", {}, each.mtime.slice(0, 16)),
    make("td", {}, file ? make("a", { href: `/api/download?${query({ ...place, path })}`, download: each.name, "aria-label": `Download ${each.name}` }, "Download") : ""));
}

async function view(place, path, shown) {
  const told = await ask(`/api/file?${query({ ...place, path })}`);
  const text = told.binary ? `${told.size} bytes that are no text` : told.text + (told.cut ? "\n… the rest can be downloaded" : "");
  const pre = make("pre", { tabindex: "0", "aria-label": path }, text);
  shown.replaceChildren(make("h3", {}, path), pre);
  pre.focus();
}

function uploadForm(place, path, done) {
  const file = make("input", { type: "file", name: "file", required: true });
  const replace = make("input", { type: "checkbox", name: "replace" });
  const submit = make("button", { type: "submit" }, "Upload");
  const form = make("form", { class: "card", "aria-label": "Upload a file" }, make("h3", {}, "Upload a file"),
    make("label", {}, "File ", file), make("label", {}, replace, " replace what is there"), submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const [chosen] = file.files;
      say(`uploading ${chosen.name}…`);
      const { size } = await ask(`/api/file?${query({ ...place, path, name: chosen.name, replace: replace.checked ? "yes" : "" })}`, { method: "PUT", body: chosen });
      done();
      say(`${chosen.name}: ${bytes(size)} are there`);
    }, submit);
  });
  return form;
}
