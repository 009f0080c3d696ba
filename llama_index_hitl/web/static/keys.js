// The keyboard: one key for what is done often. No key decides anything.

import { isTyping } from "./page.js";

const GO_TIME = 1200; // milliseconds for the second key of "g i"

export const bindKeys = (list, opened) => {
  const help = document.querySelector("[data-help-dialog]");
  const search = document.querySelector("[data-search]");
  let going = 0;

  const inDetail = () => document.activeElement?.closest("[data-detail-pane]") !== null;
  const move = (step) => {
    const row = list.neighbour(step);
    if (!row) return;
    if (inDetail() && opened.id) list.openRow(row);
    else list.focus(row);
  };
  const decide = async (key) => {
    const row = document.activeElement?.closest("li.row");
    if (row && row.dataset.id !== opened.id) {
      await list.onOpen(row.querySelector(".row-link").href, row.dataset.id);
    }
    opened.decide(key);
  };
  const go = (place) => {
    const label = { i: "Inbox", s: "Start", r: "Runs" }[place];
    [...document.querySelectorAll(".nav a")].find((link) => link.textContent === label)?.click();
  };
  const escape = () => {
    if (opened.closeForm()) return;
    const row = list.row;
    if (row && getComputedStyle(row).display !== "none" && row.offsetParent) list.focus(row);
    else document.querySelector("[data-back]")?.click();
  };

  const keys = {
    j: () => move(1),
    k: () => move(-1),
    o: () => list.openRow(list.row),
    x: () => list.toggle(list.row),
    b: () => list.selected.length && document.querySelector("[data-rows-form]").requestSubmit(),
    c: () => opened.claim(),
    "/": () => search.focus(),
    "?": () => help.showModal(),
    Escape: escape,
  };
  for (const key of "aresp") keys[key] = () => decide(key);

  document.querySelector("[data-help]")?.addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return;
    if (isTyping(event.target)) {
      if (event.key === "Escape") {
        if (event.target === search) list.focus(list.rows[0]);
        else escape();
      }
      return;
    }
    if (Date.now() - going < GO_TIME && "isr".includes(event.key)) {
      going = 0;
      event.preventDefault();
      go(event.key);
      return;
    }
    going = event.key === "g" ? Date.now() : 0;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
};
