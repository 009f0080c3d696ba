// What happens in a run after an answer, as it happens, to its result.

import { base, elements, part } from "./page.js";
import { tell } from "./times.js";

/** Follow the run of a request that was answered; returns how to stop. */
export const followRun = (panel, { request, status, title }) => {
  if (!panel || !panel.dataset.since) return () => {};
  const story = panel.querySelector("[data-next-story]");
  const since = Date.parse(panel.dataset.since);
  const source = new EventSource(panel.dataset.next);

  const add = (words, tone = "", more = null) => {
    const item = document.createElement("li");
    item.className = tone;
    item.append(words);
    if (more) item.append(more);
    const atWork = story.querySelector(".working");
    const last = atWork ? atWork.previousElementSibling : story.lastElementChild;
    // Something said again, such as a progress in steps, does not fill the page.
    if (last && last.isEqualNode(item)) return;
    story.insertBefore(item, atWork);
    while (story.childElementCount > 40) story.firstElementChild.remove();
  };
  const working = (on) => {
    story.querySelector(".working")?.remove();
    if (on) {
      const item = document.createElement("li");
      item.className = "working";
      item.textContent = "The run is at work";
      story.append(item);
    }
  };
  const end = (words, tone, more) => {
    working(false);
    add(words, tone, more);
    source.close();
  };
  const text = (value) => {
    const shown = document.createElement("pre");
    shown.tabIndex = 0;
    shown.textContent = typeof value === "string" ? value : JSON.stringify(value, null, 2);
    return shown;
  };
  /** The result as the page of the run shows it; null where it cannot be had. */
  const result = async () => {
    const answer = panel.dataset.result ? await part(panel.dataset.result).catch(() => null) : null;
    const shown = answer?.ok ? elements(answer.html).querySelector(".result") : null;
    shown?.querySelector("h2")?.remove();
    return shown;
  };
  const link = (id, words) => {
    const element = document.createElement("a");
    element.href = `${base}/requests/${encodeURIComponent(id)}`;
    element.textContent = words;
    return element;
  };
  const on = (kind, take) =>
    source.addEventListener(kind, (event) => {
      const data = JSON.parse(event.data);
      const at = Date.parse(data.at ?? "");
      if (Number.isNaN(at) || at >= since) take(data);
    });

  if (status !== "open") working(true);
  on("progress", (data) => data.message && add(data.message));
  on("retried", () => working(true));
  on("answered", (data) => {
    if (data.request_id === request) return;
    add(`${data.by ?? "Somebody"} answered “${data.summary?.title ?? title}”`);
    working(true);
  });
  for (const kind of ["input_required", "opened", "reopened"]) {
    on(kind, (data) => {
      if (data.request_id === request) return;
      const asked = data.request ?? data.summary;
      const words = document.createDocumentFragment();
      words.append(asked?.can_answer ? "Next question for you: " : "Next it asks: ", link(data.request_id, asked?.title ?? "a question"));
      working(false);
      add(words, "ask");
    });
  }
  on("final_result", async (data) => {
    source.close();
    const readable = data.readable !== false && data.result != null;
    end("The run has finished.", "good", readable ? ((await result()) ?? text(data.result)) : null);
  });
  on("failed", (data) => end("The run failed. Your answer is kept.", "bad", data.error?.message ? text(data.error.message) : null));
  on("cancelled", () => end("The run was cancelled.", "bad"));
  tell(panel);
  return () => source.close();
};
