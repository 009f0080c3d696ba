// News of the inbox, as they happen: behind the last one seen, whatever happens to the connection.

import { base } from "./page.js";

const KINDS = [
  "opened", "answered", "rule_decided", "reminded", "widened", "escalated", "defaulted", "expired",
  "superseded", "withdrawn", "reopened", "claimed", "released", "closed",
];
const GATHER = 250; // milliseconds in which news that come together are told together
const PATIENCE = 3000; // milliseconds without a connection before that is shown
const SLOWEST = 30000;

/** Follow the inbox; `onNews` gets what happened, `onBack` is told when a lost connection is back. */
export const followInbox = ({ onNews, onBack }) => {
  let last = null;
  let batch = [];
  let wait = 1000;
  let lost = false;
  let marker = null;

  const tell = () => {
    const news = batch;
    batch = [];
    onNews(news);
  };
  const take = (kind) => (event) => {
    last = event.lastEventId || last;
    if (kind === "state") return;
    if (batch.length === 0) setTimeout(tell, GATHER);
    batch.push({ kind, data: JSON.parse(event.data) });
  };
  const show = (offline) => {
    const element = document.querySelector("[data-live]");
    if (element) element.hidden = !offline;
  };

  const connect = () => {
    const query = last ? `?after=${encodeURIComponent(last)}` : "";
    const source = new EventSource(`${base}/api/inbox/events${query}`);
    for (const kind of ["state", ...KINDS]) source.addEventListener(kind, take(kind));
    source.addEventListener("open", () => {
      clearTimeout(marker);
      marker = null;
      show(false);
      wait = 1000;
      if (lost) onBack();
      lost = false;
    });
    source.addEventListener("error", () => {
      lost = true;
      marker ??= setTimeout(() => show(true), PATIENCE);
      if (source.readyState === EventSource.CLOSED) {
        // The browser gives up after an answer that is no stream; we do not.
        setTimeout(connect, wait);
        wait = Math.min(wait * 2, SLOWEST);
      }
    });
    addEventListener("pagehide", () => source.close(), { once: true });
  };
  connect();
  addEventListener("pageshow", (event) => event.persisted && connect());
};
