// The request that is opened: fetched without leaving the list, and the forms to answer it.

import { base, elements, part, toast } from "./page.js";
import { followRun } from "./next.js";
import { tell } from "./times.js";

const MODE = "hitl-diff";
const OWN = 5000; // milliseconds in which news are taken to be about one's own answer

export class Opened {
  #holder = document.querySelector("[data-detail]");
  #pane = document.querySelector("[data-detail-pane]");
  #onChange;
  #onOpen;
  #onAnswered;
  #leave = () => {};
  #request = null;
  #sent = 0;

  /**
   * `onChange` is told that lists may be old, `onOpen` what is opened. With `onAnswered`, which is
   * told that an answer was taken, the request is a part of another page, and that keeps its address.
   */
  constructor({ onChange, onOpen, onAnswered = null }) {
    this.#onChange = onChange;
    this.#onOpen = onOpen;
    this.#onAnswered = onAnswered;
    this.#holder.addEventListener("click", (event) => this.#clicked(event));
    this.#holder.addEventListener("submit", (event) => this.#submitted(event));
    this.#holder.addEventListener("keydown", (event) => this.#pressed(event));
    if (this.#isPage) addEventListener("popstate", () => this.#went());
    this.#arrived();
  }

  /** Id of the request that is opened; null: none. */
  get id() {
    return this.#article?.dataset.request ?? null;
  }

  get #isPage() {
    return this.#onAnswered === null;
  }

  address(id) {
    return `${base}/requests/${encodeURIComponent(id)}`;
  }

  /** Open a request; `id` marks it in the list before it is there. */
  async open(url, id, { push = true } = {}) {
    this.#onOpen(id);
    this.#request?.abort();
    const request = (this.#request = new AbortController());
    let answer;
    try {
      answer = await part(url, { signal: request.signal });
    } catch (error) {
      if (error.name !== "AbortError") toast("This cannot be read just now: no connection.");
      return;
    }
    if (!answer.ok) {
      toast(answer.status === 404 ? "This is no longer there for you." : "This cannot be read just now.");
      this.#onChange();
      return;
    }
    if (push && this.#isPage) history.pushState({}, "", url);
    this.#pane.querySelector(".notice")?.remove();
    this.#show(answer.html);
    this.#pane.scrollTop = 0;
    this.#holder.querySelector("#request-title")?.focus({ preventScroll: true });
  }

  /** Leave the request, back to what is beside it. */
  close() {
    const id = this.id;
    this.#leave();
    if (!this.#isPage) {
      this.#request?.abort();
      this.#holder.replaceChildren();
      return id;
    }
    document.body.classList.remove("has-detail");
    history.pushState({}, "", `${base}/${location.search}`);
    return id;
  }

  /** Open the form of a decision; returns whether there is such a decision. */
  decide(key) {
    const button = this.#holder.querySelector(`[data-decide][data-key="${key}"]`);
    button?.click();
    return Boolean(button);
  }

  claim() {
    this.#holder.querySelector("[data-claim]")?.requestSubmit();
  }

  /** Close the form of a decision, if one is open; returns whether one was. */
  closeForm() {
    const form = this.#holder.querySelector(".decide");
    if (!form) return false;
    const kind = form.dataset.decideKind;
    form.remove();
    this.#expanded(null);
    this.#holder.querySelector(`[data-decide="${kind}"]`)?.focus();
    return true;
  }

  /** The request has changed: show it anew, unless somebody is at work on a form of it. */
  async changed(words) {
    const form = this.#holder.querySelector(".decide");
    if (form) {
      if (words) this.#warn(form, words);
      return;
    }
    const focused = this.#holder.contains(document.activeElement) ? document.activeElement.id : null;
    const id = this.id;
    const answer = await part(this.address(id)).catch(() => null);
    if (!answer?.ok || this.id !== id || this.#holder.querySelector(".decide")) return;
    const scrolled = this.#pane.scrollTop;
    this.#show(answer.html);
    this.#pane.scrollTop = scrolled;
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    // What this person has just sent themselves is no news to them.
    if (words && Date.now() - this.#sent > OWN) toast(words);
  }

  get #article() {
    return this.#holder.querySelector("article.request");
  }

  #show(html) {
    this.#leave();
    this.#holder.replaceChildren(elements(html));
    if (this.#isPage) document.body.classList.add("has-detail");
    this.#arrived();
  }

  #arrived() {
    const article = this.#article;
    if (!article) return;
    tell(this.#holder);
    this.#mode(localStorageMode());
    if (!this.#isPage) return;
    document.title = `${article.dataset.title} · Inbox`;
    this.#leave = followRun(this.#holder.querySelector("[data-next]"), article.dataset);
  }

  #went() {
    const id = location.pathname.match(/\/requests\/([^/]+)$/)?.[1];
    if (id) this.open(location.href, decodeURIComponent(id), { push: false });
    else {
      this.#leave();
      this.#holder.replaceChildren();
      this.#onOpen(null);
      document.body.classList.remove("has-detail");
    }
  }

  #mode(mode) {
    for (const diffs of this.#holder.querySelectorAll("[data-diffs]")) {
      diffs.dataset.mode = mode;
      for (const button of diffs.querySelectorAll("[data-diff-mode]")) {
        button.setAttribute("aria-pressed", String(button.dataset.diffMode === mode));
      }
    }
  }

  #clicked(event) {
    const target = event.target.closest("a, button");
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (target.matches("[data-decide]")) {
      event.preventDefault();
      this.#openForm(target);
    } else if (target.matches("[data-decide-close]")) {
      event.preventDefault();
      this.closeForm();
    } else if (target.matches("[data-back]")) {
      event.preventDefault();
      this.#onOpen(this.close());
    } else if (target.matches("[data-whole]")) {
      event.preventDefault();
      const scrolled = this.#pane.scrollTop;
      this.open(`${this.address(this.id)}?whole=1`, this.id, { push: false }).then(() => {
        this.#pane.scrollTop = scrolled;
      });
    } else if (target.matches("[data-diff-mode]")) {
      this.#mode(target.dataset.diffMode);
      localStorageMode(target.dataset.diffMode);
    } else if (target.matches("[data-more-decisions]")) {
      const bar = target.closest("[data-decide-bar]");
      bar.classList.add("is-whole");
      bar.querySelector(".is-lesser").focus();
    } else if (target.matches("[data-show-now]")) {
      this.#showNow();
    }
  }

  #pressed(event) {
    // Enter in a field of a decision sends nothing: that takes its button.
    if (event.key === "Enter" && event.target.matches(".decide input")) event.preventDefault();
    if (event.key === " " && event.target.matches("a[role=button]")) {
      event.preventDefault();
      event.target.click();
    }
  }

  async #openForm(button) {
    const id = this.id;
    const answer = await part(button.dataset.url).catch(() => null);
    if (this.id !== id) return; // something else was opened meanwhile
    if (answer?.status !== 200) {
      toast(answer ? "This can no longer be decided." : "This cannot be read just now: no connection.");
      if (answer) this.changed(null);
      return;
    }
    this.#placeForm(answer.html);
    this.#expanded(button.dataset.decide);
    const first = this.#holder.querySelector(".decide :is(textarea, select, input:not([type=hidden])):not(details:not([open]) *)");
    (first ?? this.#holder.querySelector(".decide .form-actions .button"))?.focus();
  }

  #placeForm(html) {
    const holder = this.#holder.querySelector("[data-decide-form]");
    if (!holder) return; // nothing can be decided any more, and the page says so by now
    holder.replaceChildren(elements(html));
    tell(holder);
    this.#mode(localStorageMode());
  }

  #expanded(kind) {
    for (const button of this.#holder.querySelectorAll("[data-decide]")) {
      button.setAttribute("aria-expanded", String(button.dataset.decide === kind));
    }
  }

  async #submitted(event) {
    const form = event.target;
    if (!form.matches(".decide, [data-claim]")) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter));
    const buttons = [...form.querySelectorAll("button:not([hidden])")];
    for (const button of buttons) button.disabled = true;
    const id = this.id;
    let answer;
    try {
      answer = await part(form.action, { method: "POST", body });
    } catch {
      toast("Not sent: no connection. What you typed is still here.");
      for (const button of buttons) button.disabled = false;
      return;
    }
    if (this.id === id) return this.#took(form, answer);
    // Something else was opened meanwhile, and stays so.
    this.#onChange();
    if (!form.matches(".decide")) return;
    const taken = answer.ok && elements(answer.html).querySelector("article.request");
    toast(taken ? "Your answer is on record." : "Your last answer was not taken.", { href: this.address(id) });
  }

  #took(form, answer) {
    const next = elements(answer.html);
    if (next.querySelector("form.decide") && !next.querySelector("article.request")) {
      this.#placeForm(answer.html);
      const wrong = this.#holder.querySelector(".decide [aria-invalid=true]");
      (wrong ?? this.#holder.querySelector("[data-preview], .decide textarea, .decide input:not([type=hidden])"))?.focus();
      return;
    }
    if (!next.querySelector("article.request")) {
      toast("That was not done. Try again in a moment.");
      for (const button of form.querySelectorAll("button:not([hidden])")) button.disabled = false;
      return;
    }
    this.#show(answer.html);
    this.#onChange();
    this.#sent = Date.now();
    if (form.matches(".decide") && answer.ok) {
      toast("Your answer is on record.");
      this.#pane.scrollTop = 0;
      if (this.#onAnswered) return this.#onAnswered(this.close());
    }
    (this.#holder.querySelector("[data-message]") ?? this.#holder.querySelector("#request-title"))?.focus({ preventScroll: true });
  }

  /** Show the request as it is now, and above it what was typed into the form that goes away. */
  async #showNow() {
    const form = this.#holder.querySelector(".decide");
    const fields = [...form.querySelectorAll("textarea, input[type=text]")];
    const typed = fields.filter(({ value, defaultValue }) => value.trim() && value !== defaultValue);
    form.remove();
    await this.changed(null);
    if (typed.length === 0) return;
    const note = elements('<div class="callout" tabindex="-1"><div><p class="muted">You had typed:</p></div></div>');
    for (const { value } of typed) {
      const said = elements('<p class="said"></p>');
      said.firstElementChild.textContent = value;
      note.querySelector("div div").append(said);
    }
    const shown = note.firstElementChild;
    this.#holder.querySelector(".request-head")?.after(note);
    shown.focus({ preventScroll: true });
  }

  #warn(form, words) {
    form.querySelector("[data-changed]")?.remove();
    const note = elements(
      '<div class="callout callout-warn" role="alert" data-changed><div><p></p>' +
        '<button class="link-button" type="button" data-show-now>Show what is there now</button></div></div>',
    );
    note.querySelector("p").textContent = `${words} What you typed is not sent.`;
    form.prepend(note);
  }
}

const localStorageMode = (mode) => {
  try {
    if (mode) localStorage.setItem(MODE, mode);
    return localStorage.getItem(MODE) === "inline" ? "inline" : "split";
  } catch {
    return mode ?? "split";
  }
};
