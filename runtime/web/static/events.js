// Events as they come.
import { hangUp, make, socket } from "./api.js";

const KEPT = 500;

export function events(main) {
  const list = make("ol", { class: "plain", "aria-live": "polite" });
  const line = socket("/ws/events");
  const state = make("p", { role: "status" }, "waiting for events");
  line.onmessage = ({ data }) => {
    const { time, machine, event, text } = JSON.parse(data);
    list.prepend(make("li", {}, `${new Date(time * 1000).toLocaleTimeString()} ${machine} ${event} ${text}`));
    while (list.children.length > KEPT) list.lastChild.remove();
  };
  line.onclose = () => { state.textContent = "the connection was closed: open this page again"; };
  main.replaceChildren(make("h2", {}, "Events"), state, list);
  return () => hangUp(line);
}
