// The page: what the address after # names is shown in <main>.
import { ask, attempt, make, say } from "./api.js";
import { classes } from "./classes.js";
import { events } from "./events.js";
import { browse, imagePage, images } from "./images.js";
import { consolePage, logPage, machines, managementPage, shellPage } from "./machines.js";

const PAGES = { machines: "Machines", images: "Images", classes: "Classes", events: "Events" };
let me = null, leave = null;

function parts() {
  return location.hash.replace(/^#\/?/, "").split("/").map((each) => { try { return decodeURIComponent(each); } catch { return each; } });
}

const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

function open(main, [page, first = "", ...rest]) {
  switch (page) {
    case "console": return consolePage(main, first);
    case "shell": return shellPage(main, first);
    case "log": return logPage(main, first);
    case "mconsole": return managementPage(main, first);
    case "images": return images(main);
    case "image": return imagePage(main, first);
    case "browse": {
      const [partition = "", ...path] = rest;
      const href = (to) => `#/browse/${encodeURIComponent(first)}/${partition}${encoded(to)}`;
      return browse(main, { image: first, partition }, `/${path.join("/")}`, me, href);
    }
    case "files": return browse(main, { machine: first }, `/${rest.join("/")}`, me, (to) => `#/files/${encodeURIComponent(first)}${encoded(to)}`);
    case "classes": return classes(main, me);
    case "events": return events(main);
    default: return machines(main, me);
  }
}

function student(main) {
  const links = make("div", { class: "bar" });
  const body = make("div");
  const show = (page) => () => { leave?.(); leave = page(body, me.umid); };
  links.append(make("button", { type: "button" }, "Console"), make("button", { type: "button" }, "Shell"));
  links.children[0].addEventListener("click", show(consolePage));
  links.children[1].addEventListener("click", show(shellPage));
  main.replaceChildren(make("h2", {}, me.umid), links, body);
  show(consolePage)();
}

function route(focus) {
  const main = document.getElementById("main");
  const [page] = parts();
  leave?.();
  leave = null;
  say("");
  // A page listens on its own element, which goes with it.
  const fresh = make("main", { id: "main", tabindex: "-1" });
  main.replaceWith(fresh);
  if (me.student) { student(fresh); return; }
  for (const link of document.querySelectorAll("#nav a")) link.toggleAttribute("aria-current", link.getAttribute("href") === `#/${page || "machines"}`);
  leave = open(fresh, parts()) ?? null;
  if (focus && !["console", "shell", "mconsole"].includes(page)) fresh.focus();
}

attempt(async () => {
  me = await ask("/api/me");
  document.getElementById("who").textContent = me.student ? me.name : me.read_only ? "read only" : "";
  if (!me.student) document.getElementById("nav").append(...Object.entries(PAGES).map(([page, title]) => make("a", { href: `#/${page}` }, title)));
  addEventListener("hashchange", () => route(true));
  route(false);
});
