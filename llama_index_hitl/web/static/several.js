// Approving several at once: they are listed with what they are about, in a dialog, to be confirmed.

import { elements, part, toast } from "./page.js";
import { tell } from "./times.js";

export const bindSeveral = (list) => {
  const dialog = document.querySelector("[data-bulk-dialog]");

  const show = (html) => {
    dialog.replaceChildren(elements(html));
    tell(dialog);
    for (const item of dialog.querySelectorAll(".bulk-item")) {
      const wasRead = list.wasRead(item.dataset.id);
      item.querySelector("[data-not-opened]").hidden = wasRead;
      const more = item.querySelector("[data-bulk-more]");
      if (more) more.open = !wasRead; // nobody has looked at it before: it is shown whole
    }
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("#bulk-title").focus();
  };

  document.addEventListener("submit", async (event) => {
    if (event.target.matches("[data-rows-form]")) {
      event.preventDefault();
      const query = new URLSearchParams(list.selected.map((id) => ["id", id]));
      const answer = await part(`${event.target.action}?${query}`).catch(() => null);
      if (answer?.ok) show(answer.html);
      else toast("These cannot be listed just now.");
    } else if (event.target.matches("[data-bulk-form]") && dialog.contains(event.target)) {
      event.preventDefault();
      const form = event.target;
      const send = form.querySelector("[data-bulk-send]");
      send.disabled = true;
      const body = new URLSearchParams(new FormData(form));
      const answer = await part(form.action, { method: "POST", body }).catch(() => null);
      if (answer?.ok) {
        show(answer.html);
        list.clearSelection();
        list.refresh();
      } else {
        send.disabled = false;
        toast("Not sent. Try again in a moment.");
      }
    }
  });

  dialog.addEventListener("change", () => {
    const count = dialog.querySelectorAll("[name=item]:checked").length;
    const send = dialog.querySelector("[data-bulk-send]");
    if (!send) return;
    send.disabled = count === 0;
    send.querySelector("span").textContent = count === 1 ? "Approve 1" : `Approve all ${count}`;
  });

  document.addEventListener("click", (event) => {
    const close = event.target.closest("[data-close]");
    if (!close) return;
    const open = close.closest("dialog");
    if (!open) return;
    event.preventDefault();
    open.close();
  });
};
