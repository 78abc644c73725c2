// Classes, for the teacher.
import { ask, attempt, button, make, say } from "./api.js";

export function classes(main, me) {
  const list = make("div");
  main.replaceChildren(make("h2", {}, "Classes"), list);
  const refresh = () => attempt(async () => {
    const found = await ask("/api/classes");
    list.replaceChildren(...found.map((each) => card(each, me, refresh)));
    if (!found.length) list.append(make("p", {}, "There is none: 'uml class create' makes one."));
  });
  refresh();
}

function card(lesson, me, refresh) {
  const results = make("div", { "aria-live": "polite" });
  const run = (json) => async () => {
    say(`${lesson.name}: ${json.action}…`);
    const told = await ask(`/api/classes/${encodeURIComponent(lesson.name)}`, { json });
    say(`${lesson.name}: ${json.action} done`);
    if (json.action === "run") results.replaceChildren(...told.flatMap((each) => [make("h4", { class: each.ok ? "" : "bad" }, each.student), make("pre", {}, each.text)]));
    else {
      const failed = told.filter((each) => !each.ok);
      if (failed.length) say(failed.map((each) => `${each.student}: ${each.text}`).join("; "), true);
      await refresh();
    }
  };
  const rows = lesson.students.map((each) => make("tr", {}, make("td", {}, each.name),
    make("td", {}, each.runs ? make("a", { href: `#/console/${encodeURIComponent(each.umid)}` }, "Console") : "off"),
    make("td", {}, me.read_only ? "" : button("Reset", async () => {
      if (confirm(`Reset ${each.name}? All that ${each.name} changed is lost.`)) await run({ action: "reset", student: each.name })();
    }, { "aria-label": `Reset ${each.name}` }))));
  const element = make("section", { class: "card", "aria-label": lesson.name }, make("h3", {}, lesson.name), make("p", {}, `All begin with ${lesson.image}`),
    make("table", {}, make("tbody", {}, ...rows)));
  if (!me.read_only) {
    const input = make("input", { name: "command", required: true, autocomplete: "off", "aria-label": "Command for all" });
    const send = make("button", { type: "submit" }, "Run in all");
    const form = make("form", { class: "bar" }, button("Start all", run({ action: "start" })), button("Halt all", run({ action: "halt" })), input, send);
    form.addEventListener("submit", (event) => { event.preventDefault(); attempt(run({ action: "run", command: input.value }), send); });
    element.append(form);
  }
  element.append(results);
  return element;
}
