// Runs: a run's page follows what happens; the list applies its filters; the audit page copies.
//
// The server draws everything. A stream says that there is news, and the page takes over what the
// server draws then, so that a reload at any moment shows the same.

const EVENTS = [
  "input_required", "answered", "reminded", "widened", "escalated", "defaulted", "expired",
  "superseded", "withdrawn", "reopened", "closed", "claimed", "released", "rule_decided",
  "started", "progress", "retried", "final_result", "failed", "cancelled",
];
const POLL = 4000; // milliseconds between two looks where no stream can be had

const live = document.querySelector("[data-live]");
if (live) follow(live);

function follow(page) {
  const story = page.querySelector("[data-story]");
  let source = null;
  let asked = false;
  let busy = false;
  let timer = null;

  const look = async () => {
    if (busy) {
      asked = true;
      return;
    }
    busy = true;
    do {
      asked = false;
      try {
        const response = await fetch(page.dataset.live, { headers: { Accept: "text/html" } });
        if (response.status === 401 || response.redirected) return location.reload();
        if (response.ok) take(await response.text());
      } catch {
        // the server cannot be reached; the stream tells when it is back
      }
    } while (asked);
    busy = false;
  };

  const take = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-live]");
    if (!fresh) return;
    for (const part of fresh.querySelectorAll("[data-part]")) {
      const known = page.querySelector(`[data-part="${part.dataset.part}"]`);
      if (known.dataset.key === part.dataset.key) continue;
      const had = known.contains(document.activeElement);
      known.replaceWith(part);
      if (had) {
        part.tabIndex = -1;
        part.focus({ preventScroll: true });
      }
    }
    const known = new Set([...story.children].map((moment) => moment.dataset.cursor));
    for (const moment of [...fresh.querySelector("[data-story]").children]) {
      if (known.has(moment.dataset.cursor)) continue;
      moment.classList.add("moment-new");
      story.append(moment);
    }
    page.dataset.status = fresh.dataset.status;
    page.dataset.over = fresh.dataset.over;
    const title = page.querySelector("h1").textContent;
    document.title = [title, ...document.title.split(" · ").slice(-1)].join(" · ");
    document.dispatchEvent(new CustomEvent("hitl:drawn", { detail: page }));
    if (page.dataset.over) stop();
  };

  const write = (event) => {
    const place = page.querySelector("[data-writing]");
    place.hidden = false;
    place.textContent += JSON.parse(event.data).text;
    place.scrollTop = place.scrollHeight;
  };
  const wipe = () => {
    const place = page.querySelector("[data-writing]");
    place.textContent = "";
    place.hidden = true;
  };

  const open = () => {
    const address = new URL(page.dataset.events, location.href);
    if (page.dataset.cursor) address.searchParams.set("after", page.dataset.cursor);
    source = new EventSource(address);
    for (const name of EVENTS) {
      source.addEventListener(name, () => {
        wipe();
        look();
      });
    }
    source.addEventListener("delta", write);
    source.addEventListener("open", look);
    source.addEventListener("error", () => {
      // The browser connects again by itself, unless the stream was refused or has ended.
      if (source.readyState === EventSource.CLOSED && !timer) timer = setInterval(look, POLL);
    });
  };
  const stop = () => {
    source?.close();
    clearInterval(timer);
    timer = null;
    wipe();
  };

  if (!page.dataset.over) open();
  // A page that the browser kept is as old as it was left.
  addEventListener("pageshow", (event) => {
    if (event.persisted) {
      stop();
      look().then(() => page.dataset.over || open());
    }
  });
  addEventListener("pagehide", () => source?.close());
}

for (const menu of document.querySelectorAll("details.menu")) {
  addEventListener("click", (event) => {
    if (menu.open && !menu.contains(event.target)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

document.querySelector("form[data-auto]")?.addEventListener("change", (event) => event.currentTarget.requestSubmit());

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent.trim();
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // without https, browsers let nobody write to the clipboard
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      button.textContent = "Press Ctrl+C";
    }
  });
}
