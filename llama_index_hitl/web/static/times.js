// Keeps every <time data-time> current, in the reader's own time zone, by the server's clock.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const FEW = 10;
const NEAR = 120; // seconds: closer than this, the time is told every second
const NOW = 60; // seconds that are not counted
const SOON = 4 * 3600;

const served = Date.parse(document.body.dataset.now);
const offset = Number.isNaN(served) ? 0 : served - Date.now();

/** The server's time now, in milliseconds. */
export const now = () => Date.now() + offset;

const span = (seconds) => {
  const size = Math.abs(seconds);
  const [each, unit] = UNITS.find(([length]) => size >= length) ?? [1, "s"];
  return `${Math.floor(size / each)} ${unit}`;
};

// Of few hours or days one says the part of the next as well: "1 h" would hide almost another.
const leftOver = (seconds) => {
  const size = Math.floor(Math.abs(seconds));
  const place = UNITS.findIndex(([length]) => size >= length);
  if (place !== 0 && place !== 1) return span(size);
  const [[each, unit], [part, smaller]] = UNITS.slice(place);
  const rest = Math.floor((size % each) / part);
  return size < FEW * each && rest > 0 ? `${Math.floor(size / each)} ${unit} ${rest} ${smaller}` : span(size);
};

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const words = {
  ago: (left) => (Math.abs(left) < NOW ? "just now" : left < 0 ? `${span(left)} ago` : `in ${span(left)}`),
  age: (left) => (Math.abs(left) < NOW ? "now" : span(left)),
  deadline: (left) => (left > 0 ? `${leftOver(left)} left` : `${leftOver(left)} overdue`),
  moment: (left, at) => full.format(at),
};

/** Write all times below an element anew; returns whether one of them is near. */
export const tell = (root = document) => {
  let near = false;
  for (const element of root.querySelectorAll("time[data-time]")) {
    const at = new Date(element.dateTime);
    const left = (at.getTime() - now()) / 1000;
    const said = words[element.dataset.time]?.(left, at) ?? element.textContent;
    if (element.textContent !== said) element.textContent = said;
    const title = full.format(at);
    if (element.title !== title) element.title = title;
    if (element.dataset.time === "deadline") {
      const due = element.closest(".due");
      due?.classList.toggle("is-over", left <= 0);
      due?.classList.toggle("is-near", left > 0 && left < SOON);
    }
    near ||= element.dataset.time === "deadline" && Math.abs(left) < NEAR;
  }
  return near;
};

const tick = () => setTimeout(tick, tell() ? 1000 : 15000);
tick();
document.addEventListener("visibilitychange", () => document.hidden || tell());
