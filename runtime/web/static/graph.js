// Live graphs of what devices do: requests and bytes a second.
const KEPT = 60;
const SVG = "http://www.w3.org/2000/svg";
const series = new Map();

function remember(key, statistics) {
  const now = performance.now() / 1000;
  const sums = { requests: statistics.requests, bytes: statistics.read_bytes + statistics.written_bytes };
  const found = series.get(key) ?? { last: null, rates: [] };
  if (found.last && sums.requests >= found.last.requests && now - found.last.at > 0.5) {
    const seconds = now - found.last.at;
    found.rates.push({ requests: (sums.requests - found.last.requests) / seconds, bytes: (sums.bytes - found.last.bytes) / seconds });
    found.rates.splice(0, found.rates.length - KEPT);
  }
  if (!found.last || now - found.last.at > 0.5) found.last = { ...sums, at: now };
  series.set(key, found);
  return found.rates;
}

function drawn(values, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "graph");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const most = Math.max(1, ...values);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", values.map((value, i) => `${KEPT - values.length + i},${19 - (value / most) * 18}`).join(" "));
  svg.append(line);
  return svg;
}

export function graphs(umid, statistics, make, bytes) {
  const rates = remember(`${umid}/${statistics.device}`, statistics);
  const last = rates.at(-1) ?? { requests: 0, bytes: 0 };
  const requests = `${statistics.device}: ${last.requests.toFixed(0)} requests/s`;
  const size = `${bytes(Math.round(last.bytes))}/s`;
  return make("figure", { class: "device" }, make("figcaption", {}, `${requests}, ${size}`),
    drawn(rates.map((each) => each.requests), requests), drawn(rates.map((each) => each.bytes), `${statistics.device}: ${size}`));
}
