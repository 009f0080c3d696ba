// What every page's scripts share: toasts, addresses, and parts of pages as elements.

export const base = document.body.dataset.base;
const token = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

/** Say something in passing; screen readers hear it without being interrupted. */
export const toast = (text, { href, label } = {}) => {
  const holder = document.querySelector("[data-toasts]");
  const note = document.createElement("div");
  note.className = "toast";
  note.textContent = text;
  if (href) {
    const link = document.createElement("a");
    link.href = href;
    link.textContent = label ?? "Open";
    note.append(" ", link);
  }
  holder.append(note);
  while (holder.childElementCount > 3) holder.firstElementChild.remove();
  setTimeout(() => note.remove(), 7000);
};

/** HTML of this site as elements; scripts in it do not run. */
export const elements = (html) => {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  return holder.content;
};

/** Fetch a part of a page; the answer has `ok`, `status`, `html` and `url`. */
export const part = async (url, { method = "GET", body, signal } = {}) => {
  const headers = { "X-Fragment": "1" };
  if (method !== "GET") headers["X-CSRF-Token"] = token;
  const response = await fetch(url, { method, body, signal, headers, credentials: "same-origin" });
  if (response.redirected && new URL(response.url).pathname.endsWith("/sign-in")) {
    location.assign(response.url);
  }
  if (response.status === 401) location.reload(); // signed out since: the page says where to go
  return { ok: response.ok, status: response.status, html: await response.text(), url: response.url };
};

/** Whether the person is typing, or in a dialog, so that keys are theirs. */
export const isTyping = (target) =>
  target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]") !== null;

/** Something kept in this browser; null where storage is switched off. */
export const kept = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null;
    }
  },
  write(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // it holds until the page is left
    }
  },
};
