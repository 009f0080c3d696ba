// The list: filters without reloading, and rows that appear, change and vanish in their places.

import { elements, kept, part, toast } from "./page.js";
import { tell } from "./times.js";

const READ = `hitl-read-${document.body.dataset.person}`;
const READ_LIMIT = 3000;
const REST = 700; // milliseconds between two looks at the list

export class List {
  onOpen = () => {};
  #holder = document.querySelector("[data-list]");
  #filters = document.querySelector("[data-filters]");
  #read = new Set(kept.read(READ) ?? []);
  #current = null;
  #looking = null;
  #again = false;
  #typing = 0;

  constructor() {
    this.#holder.addEventListener("click", (event) => this.#clicked(event));
    this.#holder.addEventListener("change", () => this.#count());
    this.#filters.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#narrow();
    });
    this.#filters.addEventListener("change", () => this.#narrow());
    this.#filters.querySelector("[data-search]").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#narrow(), 250);
    });
    this.#filters.addEventListener("click", (event) => this.#viewed(event));
    this.#unread();
    this.#count();
  }

  get rows() {
    return [...this.#holder.querySelectorAll("li.row")];
  }

  /** The row that keys are about: where the focus is, or what is opened. */
  get row() {
    return document.activeElement?.closest("li.row") ?? this.#rowOf(this.#current);
  }

  get selected() {
    return this.rows.filter((row) => row.querySelector("[data-select]")?.checked).map((row) => row.dataset.id);
  }

  wasRead(id) {
    return this.#read.has(id);
  }

  clearSelection() {
    for (const box of this.#holder.querySelectorAll("[data-select]")) box.checked = false;
    this.#count();
  }

  toggle(row) {
    const box = row?.querySelector("[data-select]");
    if (!box) return;
    box.checked = !box.checked;
    this.#count();
  }

  /** Move by so many rows, from the one that keys are about. */
  neighbour(step) {
    const rows = this.rows;
    const at = rows.indexOf(this.row);
    return rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step] ?? null;
  }

  focus(row) {
    row?.querySelector(".row-link").focus();
    row?.scrollIntoView({ block: "nearest" });
  }

  openRow(row) {
    const link = row?.querySelector(".row-link");
    if (link) this.onOpen(link.href, row.dataset.id);
  }

  /** Show which request is opened; it counts as read. */
  mark(id) {
    this.#current = id;
    if (id) {
      this.#read.delete(id);
      this.#read.add(id);
      kept.write(READ, [...this.#read].slice(-READ_LIMIT));
    }
    for (const row of this.rows) {
      const link = row.querySelector(".row-link");
      if (row.dataset.id === id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    this.#unread();
    this.#rowOf(id)?.scrollIntoView({ block: "nearest" });
  }

  /** Look at the list anew; many calls at once look once, and once more if need be. */
  refresh() {
    if (this.#looking) {
      this.#again = true;
      return this.#looking;
    }
    this.#looking = this.#look().finally(() => {
      setTimeout(() => {
        this.#looking = null;
        if (!this.#again) return;
        this.#again = false;
        this.refresh();
      }, REST);
    });
    return this.#looking;
  }

  #rowOf(id) {
    return id ? this.#holder.querySelector(`li.row[data-id="${CSS.escape(id)}"]`) : null;
  }

  get #query() {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(this.#filters)) {
      if (value && !(name === "view" && value === "mine")) query.set(name, value);
    }
    return query.size ? `?${query}` : "";
  }

  async #look({ whole = false } = {}) {
    let answer;
    try {
      answer = await part(this.#holder.dataset.url + this.#query);
    } catch {
      return; // offline: the marker says so
    }
    if (!answer.ok) return;
    const next = elements(answer.html);
    const rows = this.#holder.querySelector("[data-rows]");
    const nextRows = next.querySelector("[data-rows]");
    if (whole || !rows || !nextRows) {
      this.#holder.replaceChildren(next);
    } else {
      this.#settle(rows, nextRows);
      this.#holder.querySelector(".more")?.replaceWith(next.querySelector(".more") ?? "");
    }
    tell(this.#holder);
    this.mark(this.#current);
    this.#count();
  }

  /** Put the rows as they are now in the place of those shown, without moving what is looked at. */
  #settle(rows, nextRows) {
    const focused = document.activeElement?.closest("li.row");
    const focusedPlace = focused ? this.rows.indexOf(focused) : -1;
    const wasChecked = document.activeElement?.matches("[data-select]");
    const top = this.#holder.getBoundingClientRect().top;
    const anchor = this.rows.find((row) => row.getBoundingClientRect().bottom > top);
    const anchorTop = anchor?.getBoundingClientRect().top;

    const known = new Map(this.rows.map((row) => [row.dataset.id, row]));
    let place = rows.firstElementChild;
    for (const next of [...nextRows.children]) {
      let row = known.get(next.dataset.id);
      known.delete(next.dataset.id);
      if (!row) {
        row = next;
        row.classList.add("is-new");
      } else if (row.dataset.version !== next.dataset.version) {
        const checked = row.querySelector("[data-select]")?.checked ?? false;
        row.className = next.className;
        row.dataset.version = next.dataset.version;
        row.toggleAttribute("data-open", "open" in next.dataset);
        row.replaceChildren(...next.childNodes);
        const box = row.querySelector("[data-select]");
        if (box) box.checked = checked;
      }
      if (row === place) place = place.nextElementSibling;
      else rows.insertBefore(row, place);
    }
    for (const row of known.values()) if (!("further" in row.dataset)) row.remove();

    if (anchor?.isConnected) this.#holder.scrollTop += anchor.getBoundingClientRect().top - anchorTop;
    if (focused && !document.activeElement?.closest("li.row")) {
      const row = focused.isConnected ? focused : (this.rows[focusedPlace] ?? this.rows.at(-1));
      row?.querySelector(wasChecked ? "[data-select]" : ".row-link")?.focus({ preventScroll: true });
    }
  }

  #unread() {
    for (const row of this.rows) {
      const unread = "open" in row.dataset && !this.#read.has(row.dataset.id);
      row.classList.toggle("is-unread", unread);
      row.querySelector("[data-unread]").hidden = !unread;
    }
  }

  #count() {
    const bar = this.#holder.querySelector("[data-bulk-bar]");
    if (!bar) return;
    const count = this.selected.length;
    bar.classList.toggle("is-on", count > 0);
    bar.querySelector("[data-bulk-count]").textContent = `${count} selected`;
  }

  #narrow() {
    clearTimeout(this.#typing);
    const path = location.pathname;
    history.replaceState(history.state, "", path + this.#query);
    this.#look({ whole: true }).then(() => {
      this.#holder.scrollTop = 0;
    });
  }

  #viewed(event) {
    const tab = event.target.closest("[data-view]");
    if (!tab || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.#filters.elements.view.value = tab.dataset.view;
    for (const each of this.#filters.querySelectorAll("[data-view]")) {
      if (each === tab) each.setAttribute("aria-current", "true");
      else each.removeAttribute("aria-current");
    }
    this.#narrow();
  }

  #clicked(event) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    const link = event.target.closest("a");
    if (event.target.closest("[data-bulk-clear]")) this.clearSelection();
    if (!link) return;
    if (link.matches(".row-link")) {
      event.preventDefault();
      this.openRow(link.closest("li.row"));
    } else if (link.matches("[data-more]")) {
      event.preventDefault();
      this.#further(link);
    }
  }

  async #further(link) {
    const after = new URL(link.href).searchParams.get("after");
    const query = new URLSearchParams(this.#query);
    query.set("after", after);
    const answer = await part(`${this.#holder.dataset.url}?${query}`).catch(() => null);
    if (!answer?.ok) {
      toast("More could not be read just now.");
      return;
    }
    const next = elements(answer.html);
    const rows = this.#holder.querySelector("[data-rows]");
    const added = [...next.querySelectorAll("li.row")].filter((row) => !this.#rowOf(row.dataset.id));
    for (const row of added) row.dataset.further = "";
    rows.append(...added);
    link.closest(".more").replaceWith(next.querySelector(".more") ?? "");
    this.#unread();
    tell(this.#holder);
    added[0]?.querySelector(".row-link").focus();
  }
}
