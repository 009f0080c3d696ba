// A question on the page of its run: opened and answered in its place, with what the inbox has for it.

import { Opened } from "./opened.js";

const pane = document.querySelector("[data-detail-pane]");
const cards = () => [...document.querySelectorAll("[data-ask]")];
const heading = document.querySelector("h1");

/** The card of what is opened gives way to it. */
const arrange = (id) => {
  pane.hidden = id === null;
  for (const card of cards()) card.hidden = card.dataset.ask === id;
};
const answered = () => {
  pane.hidden = true; // its card stays away: the page is about to be drawn anew
  document.querySelector("#main").focus({ preventScroll: true });
};
const closed = (id) => {
  arrange(null);
  const card = cards().find(({ dataset }) => dataset.ask === id);
  (card?.querySelector("a") ?? document.querySelector("#main")).focus({ preventScroll: true });
};

const opened = new Opened({ onChange() {}, onOpen() {}, onAnswered: answered });

document.addEventListener("click", async (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("[data-open-here]");
  if (link) {
    event.preventDefault();
    const id = link.closest("[data-ask]").dataset.ask;
    await opened.open(link.href, id);
    if (opened.id !== id) return;
    arrange(id);
    const title = pane.querySelector("#request-title");
    title.classList.toggle("visually-hidden", title.textContent === heading.textContent);
    title.focus({ preventScroll: true });
    pane.scrollIntoView({ block: "nearest" });
  } else if (event.target.closest("[data-close-here]")) {
    closed(opened.close());
  }
});

// The page of the run was drawn anew: what is opened may have changed, or gone, with it.
let seen = "";
document.addEventListener("hitl:drawn", () => {
  const id = opened.id;
  const stands = document.querySelector('[data-part="now"]').dataset.key;
  if (id === null || stands === seen) return;
  seen = stands;
  arrange(id);
  opened.changed("This request has changed.");
});
