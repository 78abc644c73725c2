// Asking the server, and making elements. What comes from guests is only ever set as text.
export class Failed extends Error {}

export async function ask(path, options = {}) {
  const { json, ...rest } = options;
  if (json !== undefined) Object.assign(rest, { method: "POST", body: JSON.stringify(json), headers: { "Content-Type": "application/json" } });
  let answer;
  try { answer = await fetch(path, rest); } catch { throw new Failed("the server does not answer"); }
  const text = await answer.text();
  let told;
  try { told = JSON.parse(text); } catch { throw new Failed(text.trim() || `status ${answer.status}`); }
  if (!answer.ok) throw new Failed(told.way_out ? `${told.error}; ${told.way_out}` : told.error);
  return told;
}

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(given).toString();
}

// make("td", { class: "number" }, "text", element…)
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((each) => each !== null && each !== undefined));
  return element;
}

export function say(text, bad = false) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.classList.toggle("bad", bad);
}

// Do something that may fail; the button that asked for it is off meanwhile.
export async function attempt(work, button = null) {
  if (button) button.disabled = true;
  try { return await work(); } catch (error) {
    if (!(error instanceof Failed)) throw error;
    say(error.message, true);
    return undefined;
  } finally { if (button) button.disabled = false; }
}

export function button(text, work, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, text);
  element.addEventListener("click", () => attempt(work, element));
  return element;
}

export function bytes(count) {
  let value = count, unit = 0;
  const units = ["B", "K", "M", "G", "T"];
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return unit ? `${value.toFixed(1)}${units[unit]}` : `${count}B`;
}

// Close a websocket, also one that is just being opened: the browser would complain of that.
export function hangUp(line) {
  line.onclose = line.onmessage = null;
  if (line.readyState === WebSocket.CONNECTING) line.onopen = () => line.close();
  else line.close();
}

export function socket(path) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(`${scheme}//${location.host}${path}`);
}
