// The inbox page, put together: the list, what is opened from it, news, keys.

import { followInbox } from "./live.js";
import { bindKeys } from "./keys.js";
import { List } from "./list.js";
import { bindSeveral } from "./several.js";
import { Opened } from "./opened.js";
import { toast } from "./page.js";
import "./times.js";

const list = new List();
const opened = new Opened({
  onChange: () => list.refresh(),
  onOpen: (id) => list.mark(id),
});

list.onOpen = (url, id) => opened.open(url, id);
list.mark(opened.id);
bindKeys(list, opened);
bindSeveral(list);
document.querySelector("[data-open-first]")?.addEventListener("click", () => list.openRow(list.rows[0]));

const address = new URL(location.href);
if (address.searchParams.has("notice")) {
  address.searchParams.delete("notice"); // it is not said again when the page is reloaded
  history.replaceState(history.state, "", address);
}

const WORDS = {
  answered: (summary, by) =>
    (summary.status === "open" ? "has a new vote" : `is ${summary.status.replaceAll("_", " ")}`) + (by ? `, by ${by}` : ""),
  expired: () => "has expired",
  withdrawn: () => "was withdrawn",
  superseded: () => "was replaced by a newer one",
  escalated: () => "was escalated",
};

followInbox({
  onNews(batch) {
    list.refresh();
    const fresh = batch.filter(({ kind, data }) => ["opened", "reopened", "widened"].includes(kind) && data.summary?.can_answer);
    if (fresh.length === 1) {
      toast(`New: ${fresh[0].data.summary.title}`, { href: opened.address(fresh[0].data.request_id) });
    } else if (fresh.length > 1) {
      toast(`${fresh.length} new requests`);
    }
    const mine = batch.filter(({ data }) => data.request_id === opened.id);
    if (mine.length === 0) return;
    const told = mine.findLast(({ kind, data }) => WORDS[kind] && data.summary);
    opened.changed(told ? `This request ${WORDS[told.kind](told.data.summary, told.data.by)}.` : null);
  },
  onBack: () => list.refresh(),
});
