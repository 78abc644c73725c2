// The machines, and a form that starts one.
import { ask, attempt, button, bytes, make, query, say } from "./api.js";
import { graphs } from "./graph.js";
import { terminal } from "./terminal.js";

const EVERY = 2000;

export function machines(main, me) {
  const list = make("div", { id: "machines" });
  main.replaceChildren(make("h2", {}, "Machines"), list);
  if (!me.read_only) main.append(form());
  const cards = new Map();
  let stopped = false, timer = null;
  const refresh = async () => {
    const found = await attempt(() => ask("/api/machines"));
    if (found && !stopped) show(list, cards, found, me);
    if (!stopped) timer = setTimeout(refresh, EVERY);
  };
  main.addEventListener("changed", () => { clearTimeout(timer); refresh(); });
  refresh();
  return () => { stopped = true; clearTimeout(timer); };
}

// A card stays while its machine does, so that a button keeps the focus.
function show(list, cards, found, me) {
  for (const [umid, card] of cards) if (!found.some((each) => each.umid === umid)) { card.element.remove(); cards.delete(umid); }
  for (const each of found) {
    if (!cards.has(each.umid)) { cards.set(each.umid, newCard(each.umid, me)); list.append(cards.get(each.umid).element); }
    update(cards.get(each.umid), each);
  }
  list.querySelector(".none")?.remove();
  if (!found.length) list.append(make("p", { class: "none" }, "No machine runs."));
}

function newCard(umid, me) {
  const state = make("span", { class: "state" });
  const facts = make("dl"), devices = make("div");
  const to = (page) => `#/${page}/${encodeURIComponent(umid)}`;
  const power = (action) => button(action, async () => {
    if ((action === "halt" || action === "reboot") && !confirm(`${action} ${umid}?`)) return;
    say(`${umid}: ${action}…`);
    await ask(`/api/machines/${encodeURIComponent(umid)}/power`, { json: { action } });
    say(`${umid}: ${action} done`);
  }, { "aria-label": `${action} ${umid}` });
  const bar = make("div", { class: "bar" }, make("a", { href: to("console"), "aria-label": `Console of ${umid}` }, "Console"));
  if (!me.read_only) bar.append(make("a", { href: to("shell") }, "Shell"));
  bar.append(make("a", { href: to("mconsole") }, "Management"), make("a", { href: to("files") + "/" }, "Files"), make("a", { href: to("log") }, "Log"));
  if (!me.read_only) bar.append(...["stop", "go", "reboot", "halt"].map(power));
  const element = make("section", { class: "card", "aria-label": umid }, make("h3", {}, `${umid} `, state), facts, devices, bar);
  return { element, state, facts, devices };
}

function update(card, each) {
  card.state.textContent = each.state;
  card.state.className = `state ${each.state === "running" ? "running" : each.state === "hung" ? "bad" : ""}`;
  const facts = { Root: each.root, Memory: `${bytes(each.used)} of ${bytes(each.memory)}`, Processor: `${each.cpu.toFixed(1)} s`,
    Up: `${Math.round(each.uptime)} s`, Devices: each.devices.join(", ") || "none beside its root" };
  card.facts.replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  card.devices.replaceChildren(...each.statistics.map((device) => graphs(each.umid, device, make, bytes)));
}

function form() {
  const root = make("select", { name: "root" }, make("option", { value: "" }, "a snapshot of this host, thrown away"));
  const disk = make("select", { name: "disk" }, make("option", { value: "" }, "none"));
  const network = make("select", { name: "network" }, make("option", { value: "" }, "as by default"),
    make("option", { value: "user" }, "the internet, through this host"), make("option", { value: "none" }, "none"));
  attempt(async () => {
    for (const each of (await ask("/api/images")).images) for (const select of [root, disk]) select.append(make("option", { value: each.name }, each.name));
  });
  const submit = make("button", { type: "submit" }, "Start");
  const element = make("form", { class: "card", "aria-label": "Start a machine" }, make("h3", {}, "Start a machine"),
    make("label", {}, "Name ", make("input", { name: "umid", autocomplete: "off", placeholder: "made up" })),
    make("label", {}, "Root ", root), make("label", {}, make("input", { type: "checkbox", name: "throwaway" }), " throw changes of the root away"),
    make("label", {}, "Disk ", disk), make("label", {}, "Network ", network),
    make("label", {}, "Memory ", make("input", { name: "memory", value: "256M", size: 8 })), submit);
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const given = Object.fromEntries(new FormData(element));
      say("starting…");
      const { umid } = await ask("/api/machines", { json: { ...given, throwaway: given.throwaway === "on" } });
      say(`${umid} runs`);
      element.dispatchEvent(new Event("changed", { bubbles: true }));
    }, submit);
  });
  return element;
}

export function consolePage(main, umid, line = "") {
  const path = `/ws/console/${encodeURIComponent(umid)}?${query({ line })}`;
  return terminal(main, `Console of ${umid}`, path, { back: "#/machines" });
}

export function shellPage(main, umid) {
  return terminal(main, `Shell in ${umid}`, `/ws/exec/${encodeURIComponent(umid)}`, { back: "#/machines" });
}

export function logPage(main, umid) {
  const text = make("pre", { tabindex: "0" }, "");
  main.replaceChildren(make("h2", {}, `Log of ${umid}`), text);
  attempt(async () => { text.textContent = (await ask(`/api/machines/${encodeURIComponent(umid)}/log`)).text; text.scrollTop = text.scrollHeight; });
}

export function managementPage(main, umid) {
  const output = make("pre", { tabindex: "0", "aria-live": "polite" }, "");
  const input = make("input", { name: "request", autocomplete: "off", placeholder: "help", "aria-label": "Request" });
  const send = make("button", { type: "submit" }, "Send");
  const element = make("form", { class: "bar" }, input, send);
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const request = input.value || "help";
      const reply = await ask(`/api/machines/${encodeURIComponent(umid)}/mconsole`, { json: { request } });
      output.textContent += `> ${request}\n${reply.err ? "error: " : ""}${reply.text}\n`;
      output.scrollTop = output.scrollHeight;
      input.value = "";
    }, send);
  });
  main.replaceChildren(make("h2", {}, `Management console of ${umid}`), element, output);
  input.focus();
}
