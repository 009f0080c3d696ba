// The start form: sends once, adds lines for names and values, and goes to what is wrong first.

const form = document.querySelector("form[data-once]");
if (form) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    const button = form.querySelector("[type=submit]");
    button.setAttribute("aria-disabled", "true");
    button.textContent = "Starting…";
  });
  // A page that comes back from the history was sent before, and may be sent again.
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
  const wrong = form.querySelector("[aria-invalid=true]") ?? form.querySelector("[data-focus]");
  const first = wrong ?? form.querySelector(".input");
  first?.focus({ preventScroll: !wrong });

  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) form.requestSubmit();
  });
}

const pairs = document.querySelector("[data-pairs]");
document.querySelector("[data-add-pair]")?.addEventListener("click", () => {
  const line = pairs.lastElementChild.cloneNode(true);
  const number = pairs.children.length + 1;
  for (const [input, label] of [...line.querySelectorAll("input")].map((i, n) => [i, ["Name", "Value"][n]])) {
    input.value = "";
    input.removeAttribute("aria-invalid");
    input.setAttribute("aria-label", `${label} ${number}`);
  }
  pairs.append(line);
  line.querySelector("input").focus();
});
