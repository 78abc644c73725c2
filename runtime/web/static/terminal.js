// A terminal: a console of a machine, or a command in it.
import { button, hangUp, make, say, socket } from "./api.js";

export function terminal(main, title, path, { back = null } = {}) {
  const screen = make("div", { class: "terminal" });
  const state = make("span", { role: "status" }, "connecting");
  const term = new window.Terminal({ scrollback: 5000, cursorBlink: true, screenReaderMode: true, fontSize: 14 });
  const fit = new window.FitAddon.FitAddon();
  const copy = button("Copy", async () => { await navigator.clipboard.writeText(term.getSelection()); say("copied"); });
  const paste = button("Paste", async () => { term.paste(await navigator.clipboard.readText()); term.focus(); });
  const leave = back ? make("a", { href: back }, "Leave") : null;
  main.replaceChildren(make("h2", {}, title), make("div", { class: "bar" }, state, copy, paste, leave,
    make("small", {}, "Ctrl+Shift+Escape leaves the terminal for the page")), screen);
  term.loadAddon(fit);
  term.open(screen);
  fit.fit();
  term.attachCustomKeyEventHandler((event) => {
    if (event.type === "keydown" && event.ctrlKey && event.shiftKey && event.key === "Escape") {
      (leave ?? copy).focus();
      return false;
    }
    if (event.type === "keydown" && event.ctrlKey && event.shiftKey && event.code === "KeyC" && term.hasSelection()) {
      navigator.clipboard.writeText(term.getSelection());
      event.preventDefault();
      return false;
    }
    return true;
  });
  const line = socket(path);
  line.binaryType = "arraybuffer";
  const send = (text) => { if (line.readyState === WebSocket.OPEN) line.send(text); };
  line.onopen = () => send(`s${term.rows} ${term.cols}`);
  line.onmessage = ({ data }) => { if (typeof data === "string") state.textContent = data; else term.write(new Uint8Array(data)); };
  line.onclose = ({ reason }) => { if (reason) state.textContent = reason; state.textContent += " (closed)"; };
  term.onData((text) => { for (let i = 0; i < text.length; i += 4096) send(`k${text.slice(i, i + 4096)}`); });
  term.onResize(({ rows, cols }) => send(`s${rows} ${cols}`));
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(screen);
  term.focus();
  return () => { observer.disconnect(); hangUp(line); term.dispose(); };
}
